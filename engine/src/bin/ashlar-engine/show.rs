//! `ashlar-engine examine` and `status`: looking, changing nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ashlar_engine::appliance::{Appliance, Examined, OpenOptions, examine};
use ashlar_engine::device::{Device, block, file, signature};
use ashlar_engine::raid::MemberStatus;
use ashlar_engine::runtime::DataPlane;
use ashlar_engine::types::{ByteSize, IdSource};
use clap::Args;
use serde_json::{Value, json};

use crate::Failure;
use crate::folder;

#[derive(Debug, Args)]
pub(crate) struct Examine {
    /// A file or a block device.
    path: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// The folder of the appliance.
    #[arg(long)]
    dir: PathBuf,
    /// Show as if this device (counted from 0) were absent.
    #[arg(long)]
    without: Vec<usize>,
}

/// Runs something on a data thread of its own.
fn on_data_thread<T: Send + 'static, F: Future<Output = Result<T, Failure>> + 'static>(
    task: impl FnOnce() -> F + Send + 'static,
) -> Result<T, Failure> {
    let plane = DataPlane::start(1)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let done = plane.run_on(0, move || async move {
        task().await.map_err(|failure| failure.to_string())
    });
    Ok(runtime.block_on(done)??)
}

fn open(path: &Path) -> Result<Arc<dyn Device>, Failure> {
    if path.metadata()?.is_file() {
        Ok(Arc::new(file::adopt(path, &Default::default())?))
    } else {
        Ok(Arc::new(block::open(path, &Default::default())?))
    }
}

impl Examine {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let (path, as_json) = (self.path, self.json);
        let found = on_data_thread(move || async move {
            let device = open(&path)?;
            let examined = examine(Arc::clone(&device)).await?;
            let foreign = signature::examine(&*device).await?;
            let foreign: Vec<String> = foreign.iter().map(signature::Signature::to_string).collect();
            Ok(json!({
                "capacity": device.info().capacity,
                "appliance_device": examined.as_ref().map(describe),
                "signatures": foreign,
            }))
        })?;
        if as_json {
            println!("{found:#}");
            return Ok(());
        }
        println!(
            "capacity: {}",
            ByteSize(found["capacity"].as_u64().unwrap_or_default())
        );
        match &found["appliance_device"] {
            Value::Null => println!("not a device of an appliance"),
            facts => print_facts("", facts),
        }
        for signature in found["signatures"].as_array().into_iter().flatten() {
            println!("signature: {signature}");
        }
        Ok(())
    }
}

/// One line per fact; a fact within another has both names.
fn print_facts(name: &str, fact: &Value) {
    match fact {
        Value::Object(facts) => facts.iter().for_each(|(inner, fact)| {
            let dot = if name.is_empty() { "" } else { "." };
            print_facts(&format!("{name}{dot}{inner}"), fact);
        }),
        Value::Null => println!("{name}: none"),
        Value::String(text) => println!("{name}: {text}"),
        other => println!("{name}: {other}"),
    }
}

fn describe(examined: &Examined) -> Value {
    let superblock = &examined.superblock;
    json!({
        "appliance": superblock.appliance.to_string(),
        "device": superblock.device.to_string(),
        "number": superblock.number.0,
        "sequence": superblock.sequence,
        "metadata_generation": examined.metadata_generation,
        "metadata_is_damaged": examined.metadata_is_damaged,
        "raid_group": examined.group.as_ref().map(|group| json!({
            "number": group.number.0,
            "id": group.id.to_string(),
            "membership_generation": group.membership.generation,
            "role": group.member(superblock.device),
        })),
    })
}

fn status_name(status: MemberStatus) -> &'static str {
    match status {
        MemberStatus::InSync => "in_sync",
        MemberStatus::Out => "out",
        MemberStatus::Blank => "blank",
    }
}

impl Status {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let facts = on_data_thread(move || async move {
            let sources = folder::read(&self.dir)?;
            let present = sources
                .iter()
                .enumerate()
                .filter(|(index, _)| !self.without.contains(index));
            let mut devices = Vec::new();
            for (_, source) in present {
                devices.push(source.open(&self.dir, None).await?);
            }
            let looked = OpenOptions {
                look_only: true,
                ..OpenOptions::default()
            };
            let appliance = Appliance::open(devices, &looked, IdSource::from_system()).await?;
            let groups: Vec<Value> = appliance
                .group_statuses()
                .await
                .into_iter()
                .map(|group| {
                    json!({
                        "number": group.record.number.0,
                        "waiting": group.waiting.map(|waiting| waiting.why),
                        "members": group.record.members.iter().map(|member| json!({
                            "device": member.device.to_string(),
                            "status": status_name(member.status),
                        })).collect::<Vec<_>>(),
                    })
                })
                .collect();
            let volumes: Vec<Value> = appliance
                .volume_statuses()
                .await
                .into_iter()
                .map(|volume| json!({"number": volume.record.number.0, "name": volume.record.name, "capacity": volume.record.capacity}))
                .collect();
            Ok(json!({"groups": groups, "volumes": volumes}))
        })?;
        println!("{facts:#}");
        Ok(())
    }
}
