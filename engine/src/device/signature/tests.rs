use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::device::{OpenOptions, file};

const MIB: usize = 1 << 20;

fn detect_in(disk: &[u8]) -> Vec<Signature> {
    let capacity = disk.len() as u64;
    let [head, tail] = regions(capacity)
        .map(|range| &disk[usize::try_from(range.start()).unwrap()..usize::try_from(range.end()).unwrap()]);
    detect(&Content { capacity, head, tail })
}

proptest! {
    #[test]
    fn any_content_of_any_length_is_examined(
        content in prop::collection::vec(any::<u8>(), 0..5000),
        length in 0usize..6 * MIB,
        format in 0..FORMATS.len(),
        start in 0usize..4,
    ) {
        let mut disk = vec![0; length];
        let count = content.len().min(length);
        disk[..count].copy_from_slice(&content[..count]);
        disk[length - count..].copy_from_slice(&content[..count]);
        detect_in(&disk);
        // A magic number with the end of the device anywhere behind it.
        let (offset, magic) = FORMATS[format].magic;
        let starts = FORMATS[format].starts;
        if let Some(at) = starts[start % starts.len()].resolve(length as u64) {
            let at = usize::try_from(at + offset).unwrap();
            if at + magic.len() <= length {
                disk[at..][..magic.len()].copy_from_slice(magic);
                disk.truncate(at + magic.len() + content.len() % 64);
                detect_in(&disk);
            }
        }
    }

    #[test]
    fn regions_shorter_than_they_should_be_are_examined(
        capacity in any::<u64>(),
        head in prop::collection::vec(any::<u8>(), 0..600),
        tail in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        detect(&Content { capacity, head: &head, tail: &tail });
    }
}

#[test]
fn every_format_is_recognised_wherever_it_may_start() {
    for format in FORMATS {
        for start in format.starts {
            let mut disk = vec![0; 8 * MIB + 512];
            let at = start.resolve(disk.len() as u64).unwrap();
            let (offset, magic) = format.magic;
            disk[usize::try_from(at + offset).unwrap()..][..magic.len()].copy_from_slice(magic);
            let expected = Signature {
                kind: format.kind,
                at,
                label: None,
                uuid: None,
            };
            assert!(detect_in(&disk).contains(&expected), "{expected}");
        }
    }
}

#[test]
fn a_zfs_label_is_recognised_at_either_end() {
    for at in [0, 256 << 10, 7 * MIB + (512 << 10), 7 * MIB + (768 << 10)] {
        let mut disk = vec![0; 8 * MIB + 4096];
        disk[at + (128 << 10) + 4096..][..8].copy_from_slice(&0x00ba_b10c_u64.to_le_bytes());
        assert_eq!(
            detect_in(&disk).first().map(|found| (found.kind, found.at)),
            Some((Kind::Zfs, at as u64))
        );
    }
}

#[test]
fn a_partition_table_is_told_from_a_boot_sector() {
    let mut disk = vec![0; 8 * MIB];
    assert_eq!(detect_in(&disk), []);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    assert_eq!(detect_in(&disk).first().map(|found| found.kind), Some(Kind::Mbr));
    disk[446] = 1;
    assert_eq!(detect_in(&disk), []);
    disk[446] = 0x80;
    disk[3..11].copy_from_slice(b"NTFS    ");
    assert_eq!(
        detect_in(&disk)
            .iter()
            .map(|found| found.kind)
            .collect::<Vec<_>>(),
        [Kind::Ntfs]
    );
}

/// Runs `command`, whose last word is the file. `None` where this machine doesn't have it.
fn make(command: &str, path: &Path) -> Option<()> {
    let words: Vec<&str> = command.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).arg(path).output().ok()?;
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(())
}

fn blkid(path: &Path) -> String {
    let output = Command::new("blkid")
        .args(["--probe", "--output", "export"])
        .arg(path)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn what_real_tools_make_is_recognised_and_erased_so_that_blkid_finds_nothing() {
    let uuid = "11223344-5566-4788-99aa-bbccddeeff00";
    let named = format!("-q -L Label -U {uuid}");
    for (command, kind, label) in [
        (format!("mkfs.ext4 {named}"), Kind::Ext, Some("Label")),
        (format!("mkswap {}", &named[3..]), Kind::Swap, Some("Label")),
        (
            format!("mkfs.xfs -q -L Label -m uuid={uuid}"),
            Kind::Xfs,
            Some("Label"),
        ),
        (format!("mkfs.btrfs {named}"), Kind::Btrfs, Some("Label")),
        (
            format!(
                "cryptsetup luksFormat -q --label Label --uuid {uuid} --pbkdf-force-iterations 4 --pbkdf-memory 32 --key-file /proc/version"
            ),
            Kind::Luks,
            Some("Label"),
        ),
        ("mkfs.fat -F 32 -n LABEL".to_owned(), Kind::Fat, Some("LABEL")),
        ("mkfs.ntfs -q -Q -F -L Label".to_owned(), Kind::Ntfs, None),
        (format!("make-bcache -C --cset-uuid {uuid}"), Kind::Bcache, None),
        (format!("sgdisk -n 1 -U {uuid}"), Kind::Gpt, None),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::File::create(&path).unwrap().set_len(512 << 20).unwrap();
        if make(&command, &path).is_none() {
            eprintln!("skipped, not installed here: {command}");
            continue;
        }
        let device = file::adopt(&path, &OpenOptions::default()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let tasks = tokio::task::LocalSet::new();
        let found = tasks.block_on(&runtime, examine(&device)).unwrap();
        let first = found
            .first()
            .unwrap_or_else(|| panic!("{command}: nothing found"));
        assert_eq!((first.kind, first.label.as_deref()), (kind, label), "{command}");
        if command.contains(uuid) && kind != Kind::Bcache {
            assert_eq!(first.uuid.as_deref(), Some(uuid), "{command}");
        }
        assert_ne!(blkid(&path), "", "{command}");
        tasks.block_on(&runtime, erase(&device)).unwrap();
        assert_eq!(tasks.block_on(&runtime, examine(&device)).unwrap(), []);
        assert_eq!(blkid(&path), "", "{command}");
    }
}
