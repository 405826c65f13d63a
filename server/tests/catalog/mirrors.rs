//! The mirrors of the engine's objects.

use ashlar_server::app::facts::Facts;
use ashlar_server::app::reconcile::write;
use ashlar_server::catalog::devices::{self, DeviceFacts, DeviceFilter, DeviceKind, DeviceSort};
use ashlar_server::catalog::exports::{self, ExportFacts, ExportFilter, ExportProtection, ExportSort};
use ashlar_server::catalog::raid_groups::{self, RaidGroupFacts, RaidGroupFilter, RaidGroupSort};
use ashlar_server::catalog::volumes::{self, VolumeFacts, VolumeFilter, VolumeSort};
use ashlar_server::catalog::{After, CatalogError, Part, Presence};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::cluster::{Database, within};

fn volume(number: i32, name: &str) -> VolumeFacts {
    VolumeFacts {
        id: Uuid::from_u128(u128::try_from(number).unwrap()),
        number,
        name: name.into(),
        emulation: "open-4096".into(),
        capacity: 1 << 30,
        partial: false,
    }
}

#[tokio::test]
async fn a_hundred_thousand_volumes_are_mirrored_and_paged() {
    let database = Database::migrated().await;
    let conn = &mut *database.pool.acquire().await.unwrap();
    let mut rows: Vec<VolumeFacts> = (0..100_000)
        .map(|number| volume(number, &format!("vol{number:06}")))
        .collect();
    within(volumes::upsert(conn, &rows, Presence::Adopted))
        .await
        .unwrap();
    rows[5].capacity *= 2;
    within(volumes::upsert(conn, &rows, Presence::Adopted))
        .await
        .unwrap();
    let changed = volumes::get(conn, rows[5].id).await.unwrap().unwrap();
    assert_eq!((changed.version, changed.capacity), (2, 2 << 30));
    let same = volumes::get(conn, rows[6].id).await.unwrap().unwrap();
    assert_eq!(same.version, 1);
    assert_eq!(volumes::known(conn).await.unwrap().len(), rows.len());
    let mut part = Part {
        sort: VolumeSort::Name,
        descending: false,
        after: None,
        limit: 100,
    };
    part.after = Some(After {
        value: "vol099899".into(),
        id: rows[99_899].id,
    });
    let last = volumes::page(conn, &VolumeFilter::default(), &part)
        .await
        .unwrap();
    assert_eq!((last.rows.len(), last.next), (100, None));
    assert_eq!(last.rows[0].name, "vol099900");
}

#[tokio::test]
async fn objects_that_exchanged_their_names_and_numbers_are_mirrored() {
    let database = Database::migrated().await;
    let conn = &mut *database.pool.acquire().await.unwrap();
    let (mut one, mut two) = (volume(1, "one"), volume(2, "two"));
    volumes::upsert(conn, &[one.clone(), two.clone()], Presence::Present)
        .await
        .unwrap();
    std::mem::swap(&mut one.name, &mut two.name);
    std::mem::swap(&mut one.number, &mut two.number);
    volumes::upsert(conn, &[one.clone(), two], Presence::Present)
        .await
        .unwrap();
    let row = volumes::get(conn, one.id).await.unwrap().unwrap();
    assert_eq!((row.name.as_str(), row.number, row.version), ("two", 2, 2));
    assert_eq!(row.presence, Presence::Present);
}

#[tokio::test]
async fn names_that_were_exchanged_between_two_statements_are_mirrored() {
    let database = Database::migrated().await;
    let conn = &mut *database.pool.acquire().await.unwrap();
    let mut facts = Facts {
        volumes: vec![volume(1, "one"), volume(2, "two")],
        ..Facts::default()
    };
    write(conn, &facts, Presence::Present, 1).await.unwrap();
    for (index, name) in [(0, "two"), (1, "one")] {
        facts.volumes[index].name = name.into();
    }
    write(conn, &facts, Presence::Present, 1).await.unwrap();
    for wanted in &facts.volumes {
        let row = volumes::get(conn, wanted.id).await.unwrap().unwrap();
        assert_eq!((&row.name, row.presence), (&wanted.name, Presence::Present));
    }
}

#[tokio::test]
async fn what_went_missing_gives_up_its_name_and_is_known_when_it_comes_back() {
    let database = Database::migrated().await;
    let conn = &mut *database.pool.acquire().await.unwrap();
    let (mut old, new) = (volume(1, "data"), volume(2, "data"));
    volumes::upsert(conn, std::slice::from_ref(&old), Presence::Adopted)
        .await
        .unwrap();
    let refused = volumes::upsert(conn, std::slice::from_ref(&new), Presence::Present).await;
    assert!(matches!(refused, Err(CatalogError::Constraint { name }) if name == "volumes_name"));
    let ids = [old.id];
    assert_eq!(
        volumes::set_presence(conn, &ids, Presence::Missing)
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        volumes::set_presence(conn, &ids, Presence::Missing)
            .await
            .unwrap(),
        0
    );
    volumes::upsert(conn, std::slice::from_ref(&new), Presence::Present)
        .await
        .unwrap();
    old.name = "old".into();
    volumes::upsert(conn, std::slice::from_ref(&old), Presence::Adopted)
        .await
        .unwrap();
    let back = volumes::lock(conn, old.id).await.unwrap().unwrap();
    assert_eq!((back.presence, back.version), (Presence::Present, 3));
    assert!(volumes::delete(conn, old.id).await.unwrap());
    assert!(!volumes::delete(conn, old.id).await.unwrap());
}

/// Every order, both directions, page by page.
macro_rules! walk {
    ($conn:expr, $table:ident, $filter:expr, $sorts:expr) => {
        for sort in $sorts {
            let mut walks = [false, true].map(|descending| (descending, Vec::new()));
            for (descending, ids) in &mut walks {
                let mut part = Part {
                    sort,
                    descending: *descending,
                    after: None,
                    limit: 2,
                };
                loop {
                    let page = $table::page($conn, &$filter, &part).await.unwrap();
                    ids.extend(page.rows.iter().map(|row| row.id));
                    part.after = page.next;
                    if part.after.is_none() {
                        break;
                    }
                }
            }
            let [(_, up), (_, mut down)] = walks;
            down.reverse();
            assert_eq!(up, down, "{sort:?}");
            assert_eq!(up.len(), 5, "{sort:?}");
        }
    };
}

/// Five of each.
async fn fill(conn: &mut PgConnection) {
    let id = |number: i32| Uuid::from_u128(u128::try_from(number).unwrap());
    let devices: Vec<DeviceFacts> = (0..5)
        .map(|number| DeviceFacts {
            id: id(number),
            number,
            name: (number % 2 == 0).then(|| format!("disk{number}")),
            kind: DeviceKind::File,
            location: format!("/disks/{number}"),
            capacity: 1 << 40,
        })
        .collect();
    let groups: Vec<RaidGroupFacts> = (0..5)
        .map(|number| RaidGroupFacts {
            id: id(number),
            number,
            name: None,
            level: 1,
            stripe_unit: None,
            slice_length: 1 << 30,
            capacity: 1 << 40,
        })
        .collect();
    let volumes: Vec<VolumeFacts> = (0..5)
        .map(|number| volume(number, &format!("v{number}")))
        .collect();
    let exports: Vec<ExportFacts> = (0..5)
        .map(|number| ExportFacts {
            id: id(number),
            name: format!("e{number}"),
            volume: id(number),
            read_only: false,
            clients: vec!["192.0.2.0/24".into(), "2001:db8::1".into()],
            protection: ExportProtection::Tls,
            exclusive: true,
            polling_us: Some(0),
            enabled: true,
        })
        .collect();
    devices::upsert(conn, &devices, Presence::Present).await.unwrap();
    raid_groups::upsert(conn, &groups, Presence::Present)
        .await
        .unwrap();
    volumes::upsert(conn, &volumes, Presence::Present).await.unwrap();
    exports::upsert(conn, &exports, Presence::Present).await.unwrap();
}

#[tokio::test]
async fn every_listing_can_be_walked_in_every_order() {
    let database = Database::migrated().await;
    let conn = &mut *database.pool.acquire().await.unwrap();
    fill(conn).await;
    let present = Some(Presence::Present);

    let filter = DeviceFilter {
        kind: Some(DeviceKind::File),
        presence: present,
        ..DeviceFilter::default()
    };
    let sorts = [
        DeviceSort::Number,
        DeviceSort::Name,
        DeviceSort::Capacity,
        DeviceSort::CreatedAt,
    ];
    walk!(conn, devices, filter, sorts);
    let filter = RaidGroupFilter {
        level: Some(1),
        presence: present,
        ..RaidGroupFilter::default()
    };
    let sorts = [
        RaidGroupSort::Number,
        RaidGroupSort::Name,
        RaidGroupSort::Capacity,
        RaidGroupSort::CreatedAt,
    ];
    walk!(conn, raid_groups, filter, sorts);
    let filter = VolumeFilter {
        partial: Some(false),
        presence: present,
        ..VolumeFilter::default()
    };
    let sorts = [
        VolumeSort::Number,
        VolumeSort::Name,
        VolumeSort::Capacity,
        VolumeSort::CreatedAt,
    ];
    walk!(conn, volumes, filter, sorts);
    let filter = ExportFilter {
        enabled: Some(true),
        presence: present,
        ..ExportFilter::default()
    };
    walk!(conn, exports, filter, [ExportSort::Name, ExportSort::CreatedAt]);

    let export = exports::get(conn, Uuid::from_u128(3)).await.unwrap().unwrap();
    assert_eq!(export.clients, ["192.0.2.0/24", "2001:db8::1"]);
    assert_eq!(
        (export.protection, export.polling_us),
        (ExportProtection::Tls, Some(0))
    );
}

#[tokio::test]
async fn a_cursor_of_another_order_is_refused() {
    let database = Database::migrated().await;
    let conn = &mut *database.pool.acquire().await.unwrap();
    for (sort, value) in [
        (VolumeSort::Number, "vol0"),
        (VolumeSort::Number, "99999999999"),
        (VolumeSort::CreatedAt, "yesteryear"),
    ] {
        let part = Part {
            sort,
            descending: false,
            after: Some(After {
                value: value.into(),
                id: Uuid::nil(),
            }),
            limit: 1,
        };
        let refused = volumes::page(conn, &VolumeFilter::default(), &part).await;
        assert!(
            matches!(refused, Err(CatalogError::Cursor)),
            "{value}: {refused:?}"
        );
    }
}
