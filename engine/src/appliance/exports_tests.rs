use futures_util::FutureExt as _;

use super::tests::{Bench, MIB, VOLUME, run, volume, write};
use super::*;
use crate::export::Polling;
use crate::export::access::{Protection, Refusal, Visitor};
use crate::raid::Level;
use crate::types::ExportId;

fn export(name: &str) -> NewExport {
    NewExport {
        id: None,
        name: name.into(),
        volume: VOLUME,
        read_only: false,
        clients: Vec::new(),
        protection: Protection::Plain,
        exclusive: false,
        polling: Polling::default(),
        enabled: true,
    }
}

fn visitor(address: &str) -> Visitor {
    Visitor {
        address: Some(address.parse().unwrap()),
        protection: Protection::Plain,
    }
}

fn names(appliance: &Appliance, address: &str) -> Vec<String> {
    appliance.registry().names(&visitor(address))
}

#[test]
fn exports_are_offered_again_after_a_restart_with_their_rules() {
    run(async {
        let bench = Bench::new(2);
        let appliance = bench.create(Level::Raid1, 2).await;
        let narrow = NewExport {
            clients: vec!["192.0.2.0/24".into()],
            read_only: true,
            ..export("narrow")
        };
        let off = NewExport {
            enabled: false,
            ..export("off")
        };
        for new in [export("wide"), narrow, off] {
            appliance.create_export(bench.op(), new).await.unwrap();
        }
        drop(appliance);
        let appliance = bench.open(&[0, 1]).await;
        assert_eq!(names(&appliance, "192.0.2.1"), ["narrow", "wide"]);
        assert_eq!(names(&appliance, "203.0.113.1"), ["wide"]);
        let found = appliance
            .registry()
            .find("narrow", &visitor("192.0.2.1"))
            .unwrap();
        assert!(found.export.access.read_only);
        assert_eq!(found.export.target.id(), VOLUME);
        let offered: Vec<(String, bool)> = appliance
            .exports()
            .await
            .into_iter()
            .map(|export| (export.record.name, export.offered))
            .collect();
        assert_eq!(offered.len(), 3);
        assert!(offered.contains(&("off".into(), false)));
        drop(appliance);
        let waiting = bench.open(&[1]).await;
        assert!(names(&waiting, "192.0.2.1").is_empty());
        assert_eq!(waiting.exports().await.len(), 3);
    });
}

#[test]
fn a_changed_export_is_withdrawn_only_after_its_connections_and_offered_anew() {
    run(async {
        let bench = Bench::new(2);
        let appliance = bench.create(Level::Raid1, 2).await;
        let id = appliance.create_export(bench.op(), export("e")).await.unwrap().id;
        let registry = appliance.registry();
        let end = Arc::default();
        let offered = registry.find("e", &visitor("192.0.2.1")).unwrap();
        let held = offered.attach(Arc::clone(&end)).await.unwrap();
        assert_eq!(appliance.find_export(id).await.unwrap().connections, 1);
        let change = ExportChange {
            clients: Some(vec!["203.0.113.1".into()]),
            ..ExportChange::default()
        };
        let mut changed = Box::pin(appliance.change_export(bench.op(), id, change));
        assert!(changed.as_mut().now_or_never().is_none());
        assert!(
            end.given().now_or_never().is_some(),
            "the connection is asked to end"
        );
        drop(held);
        changed.await.unwrap();
        let refused = registry.find("e", &visitor("192.0.2.1")).err();
        assert_eq!(refused, Some(Refusal::Policy));
        assert!(registry.find("e", &visitor("203.0.113.1")).is_ok());
        let same = ExportChange::default();
        let attached = registry.find("e", &visitor("203.0.113.1")).unwrap();
        let held = attached.attach(Arc::default()).await.unwrap();
        appliance.change_export(bench.op(), id, same).await.unwrap();
        assert_eq!(appliance.find_export(id).await.unwrap().connections, 1);
        drop(held);
    });
}

#[test]
fn a_volume_is_deleted_only_when_no_export_names_it_and_its_name_is_not_theirs() {
    run(async {
        let bench = Bench::new(2);
        let appliance = bench.create(Level::Raid1, 2).await;
        let mut ids = Vec::new();
        for name in ["vol0", "second"] {
            ids.push(
                appliance
                    .create_export(bench.op(), export(name))
                    .await
                    .unwrap()
                    .id,
            );
        }
        appliance
            .rename_volume(bench.op(), VOLUME, "other")
            .await
            .unwrap();
        assert_eq!(names(&appliance, "192.0.2.1"), ["second", "vol0"]);
        for id in ids {
            let refused = appliance.delete_volume(bench.op(), VOLUME).await;
            assert!(matches!(refused, Err(VerbError::VolumeExported { .. })));
            write(&appliance, 0, 0, 1, 4096).await.unwrap();
            appliance.delete_export(bench.op(), id).await.unwrap();
        }
        assert!(names(&appliance, "192.0.2.1").is_empty());
        appliance.delete_volume(bench.op(), VOLUME).await.unwrap();
    });
}

#[test]
fn an_export_verb_is_done_once_also_after_a_restart() {
    run(async {
        let bench = Bench::new(2);
        let mut appliance = bench.create(Level::Raid1, 2).await;
        let (create, rename, delete) = (bench.op(), bench.op(), bench.op());
        let made = appliance.create_export(create, export("e")).await.unwrap();
        let renamed = ExportChange {
            name: Some("f".into()),
            ..ExportChange::default()
        };
        appliance
            .change_export(rename, made.id, renamed.clone())
            .await
            .unwrap();
        for _ in 0..2 {
            let again = appliance.create_export(create, export("e")).await.unwrap();
            assert_eq!(again, made);
            appliance
                .change_export(rename, made.id, renamed.clone())
                .await
                .unwrap();
            assert_eq!(names(&appliance, "192.0.2.1"), ["f"]);
            drop(appliance);
            appliance = bench.open(&[0, 1]).await;
        }
        appliance.delete_export(delete, made.id).await.unwrap();
        appliance.delete_export(delete, made.id).await.unwrap();
        assert!(appliance.exports().await.is_empty());
    });
}

#[test]
fn an_export_with_wrong_input_is_refused() {
    run(async {
        let bench = Bench::new(2);
        let appliance = bench.create(Level::Raid1, 2).await;
        let next = volume("next", MIB);
        appliance.create_volume(bench.op(), &next).await.unwrap();
        let made = appliance.create_export(bench.op(), export("e")).await.unwrap();
        let refused = appliance.create_export(bench.op(), export("e")).await;
        assert!(matches!(refused, Err(VerbError::NameTaken(_))));
        let same = NewExport {
            id: Some(made.id),
            ..export("f")
        };
        let refused = appliance.create_export(bench.op(), same).await;
        assert!(matches!(refused, Err(VerbError::IdTaken(_))));
        let nobody = NewExport {
            clients: vec!["host".into()],
            ..export("f")
        };
        let refused = appliance.create_export(bench.op(), nobody).await;
        assert!(matches!(refused, Err(VerbError::ClientRange(_))));
        let unknown = ExportId::random(&bench.ids);
        let refused = appliance.delete_export(bench.op(), unknown).await;
        assert!(matches!(refused, Err(VerbError::NoSuchExport(id)) if id == unknown));
    });
}
