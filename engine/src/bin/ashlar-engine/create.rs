//! `ashlar-engine create`.

use std::path::PathBuf;

use ashlar_engine::appliance::{
    Appliance, ApplianceSettings, NewAppliance, NewDevice, NewGroupRequest, NewVolume,
};
use ashlar_engine::device::CachePolicy;
use ashlar_engine::logical_device::SliceLength;
use ashlar_engine::map::Layout;
use ashlar_engine::nbd::uri::NbdUri;
use ashlar_engine::raid::Level;
use ashlar_engine::runtime::DataPlane;
use ashlar_engine::types::{ApplianceId, ByteSize, EmulationType, IdSource, OperationId};
use clap::Args;

use crate::Failure;
use crate::folder::{self, Source};

/// Unit of stripes.
const UNIT: u64 = 64 << 10;
/// Size of the extra holder of metadata.
const HOLDER_SIZE: u64 = 16 << 20;

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Folder of the appliance; made where it does not exist.
    #[arg(long)]
    dir: PathBuf,
    /// RAID level: 0, 1, 3, 5, 6 or 10.
    #[arg(long, default_value_t = 1)]
    level: u8,
    /// How many members in all: those that are not given with `--member` are made as files.
    #[arg(long, default_value_t = 2)]
    members: u32,
    /// Use this remote export as one of the members; may be given more than once.
    #[arg(long = "member", value_name = "NBD-URI")]
    remote: Vec<NbdUri>,
    /// Size of each member that is made as a file.
    #[arg(long, default_value = "10GiB")]
    member_size: ByteSize,
    /// Whether hosts' data passes the page cache: `direct` (it does not) or `buffered`.
    #[arg(long, default_value = "buffered", value_parser = parse_cache)]
    cache: CachePolicy,
    /// Name of the volume.
    #[arg(long, default_value = "vol0")]
    volume: String,
    /// Size of the volume.
    #[arg(long, default_value = "8GiB")]
    size: ByteSize,
    /// Emulation type of the volume: `open`, `open-4096`, `3390-3` and so on.
    #[arg(long, default_value = "open")]
    emulation: EmulationType,
    /// Length of a logical device.
    #[arg(long, default_value = "64MiB")]
    slice: ByteSize,
    /// Add a small device that only holds metadata, so that either of two members can start with it.
    #[arg(long)]
    third_holder: bool,
    /// Use the devices whatever they hold.
    #[arg(long)]
    force: bool,
}

fn parse_cache(text: &str) -> Result<CachePolicy, String> {
    match text {
        "direct" => Ok(CachePolicy::Direct),
        "buffered" => Ok(CachePolicy::Buffered),
        _ => Err("use `direct` or `buffered`".into()),
    }
}

impl Create {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let level = match self.level {
            0 => Level::Raid0,
            1 => Level::Raid1,
            3 => Level::Raid3,
            5 => Level::Raid5,
            6 => Level::Raid6,
            10 => Level::Raid10,
            other => {
                return Err(
                    format!("RAID level {other} is not supported here: use 0, 1, 3, 5, 6 or 10").into(),
                );
            }
        };
        if folder::is_made(&self.dir) {
            return Err(format!("{} has an appliance already", self.dir.display()).into());
        }
        std::fs::create_dir_all(&self.dir)?;
        let plane = DataPlane::start(1)?;
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let made = plane.run_on(0, move || async move {
            self.make(level).await.map_err(|error| error.to_string())
        });
        Ok(runtime.block_on(made)??)
    }

    fn sources(&self) -> Vec<(Source, u64)> {
        let file = |name: String, size: u64| {
            (
                Source::File {
                    path: name.into(),
                    cache: self.cache,
                },
                size,
            )
        };
        let files = self
            .members
            .saturating_sub(u32::try_from(self.remote.len()).unwrap_or(u32::MAX));
        let members = (0..files).map(|member| file(format!("member-{member}.img"), self.member_size.0));
        let holder = self.third_holder.then(|| file("holder.img".into(), HOLDER_SIZE));
        let remote = self.remote.iter().map(|uri| (Source::Remote(uri.clone()), 0));
        members.chain(remote).chain(holder).collect()
    }

    /// Makes everything, or leaves nothing behind that was not there before.
    async fn make(&self, level: Level) -> Result<(), Failure> {
        let new_files: Vec<PathBuf> = self
            .sources()
            .iter()
            .filter_map(|(source, _)| source.file(&self.dir))
            .filter(|path| !path.exists())
            .collect();
        let made = self.make_all(level).await;
        if made.is_err() {
            for file in new_files.iter().filter(|file| file.exists()) {
                std::fs::remove_file(file)?;
            }
        }
        made
    }

    async fn make_all(&self, level: Level) -> Result<(), Failure> {
        let sources = self.sources();
        let mut devices = Vec::new();
        for (source, size) in &sources {
            devices.push(source.open(&self.dir, Some(*size)).await?);
        }
        let ids = IdSource::from_system();
        let device = |device| NewDevice {
            force: self.force,
            ..NewDevice::new(device)
        };
        let new = NewAppliance {
            registry: Default::default(),
            id: ApplianceId::random(&ids),
            settings: ApplianceSettings {
                smallest_volume: 0,
                ..ApplianceSettings::default()
            },
            devices: devices.into_iter().map(device).collect(),
        };
        let appliance = Appliance::create(OperationId::random(&ids), new, ids.clone()).await?;
        let members = sources.len() - usize::from(self.third_holder);
        let devices = appliance.devices().await;
        let request = NewGroupRequest {
            id: None,
            number: None,
            name: None,
            level,
            members: devices
                .iter()
                .take(members)
                .map(|device| device.record.id)
                .collect(),
            slice: SliceLength::new(self.slice.0, self.slice.0.max(64 << 20))?,
            unit: UNIT,
            checksums: true,
        };
        let group = appliance
            .create_group(OperationId::random(&ids), &request)
            .await?;
        for waste in group.waste {
            eprintln!(
                "{} of device {} are not used: the members are of unequal size",
                ByteSize(waste.bytes),
                waste.device
            );
        }
        let volume = NewVolume {
            id: None,
            number: None,
            name: self.volume.clone(),
            emulation: self.emulation,
            capacity: Some(self.size.0),
            placements: Vec::new(),
            rest: Some(group.id),
            layout: Layout::Aligned,
            exact: false,
        };
        appliance
            .create_volume(OperationId::random(&ids), &volume)
            .await?;
        appliance.stop().await;
        let sources: Vec<Source> = sources.into_iter().map(|(source, _)| source).collect();
        folder::write(&self.dir, &sources)
    }
}
