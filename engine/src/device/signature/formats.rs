//! The table of formats that are recognised by bytes at a fixed place.

use self::Identity::{Binary, MixedEndian, Text};
use self::Start::{At, BeforeEnd};

/// What a signature belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Apfs,
    Bcache,
    Bcachefs,
    BitLocker,
    BlueStore,
    Btrfs,
    Drbd,
    Erofs,
    ExFat,
    Ext,
    F2fs,
    Fat,
    Gfs2,
    Gpt,
    HfsPlus,
    Iso9660,
    Jfs,
    Luks,
    Lvm,
    Mbr,
    Md,
    Nilfs,
    Ntfs,
    Ocfs2,
    Refs,
    ReiserFs,
    Squashfs,
    Stratis,
    Swap,
    Udf,
    Vdo,
    Vmfs,
    Xfs,
    Zfs,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Apfs => "APFS container",
            Self::Bcache => "bcache device",
            Self::Bcachefs => "bcachefs file system",
            Self::BitLocker => "BitLocker volume",
            Self::BlueStore => "Ceph BlueStore device",
            Self::Btrfs => "btrfs file system",
            Self::Drbd => "DRBD metadata",
            Self::Erofs => "EROFS file system",
            Self::ExFat => "exFAT file system",
            Self::Ext => "ext2/3/4 file system",
            Self::F2fs => "F2FS file system",
            Self::Fat => "FAT file system",
            Self::Gfs2 => "GFS2 file system",
            Self::Gpt => "GUID partition table",
            Self::HfsPlus => "HFS+ file system",
            Self::Iso9660 => "ISO 9660 file system",
            Self::Jfs => "JFS file system",
            Self::Luks => "LUKS encryption header",
            Self::Lvm => "LVM2 physical volume",
            Self::Mbr => "MBR partition table",
            Self::Md => "Linux md RAID member",
            Self::Nilfs => "NILFS2 file system",
            Self::Ntfs => "NTFS file system",
            Self::Ocfs2 => "OCFS2 file system",
            Self::Refs => "ReFS file system",
            Self::ReiserFs => "ReiserFS file system",
            Self::Squashfs => "SquashFS file system",
            Self::Stratis => "Stratis block device",
            Self::Swap => "swap space",
            Self::Udf => "UDF file system",
            Self::Vdo => "VDO volume",
            Self::Vmfs => "VMFS volume",
            Self::Xfs => "XFS file system",
            Self::Zfs => "ZFS pool member",
        })
    }
}

/// Where a structure begins.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start {
    At(u64),
    /// So many bytes before the end, after the end was rounded down to a multiple of `unit`.
    BeforeEnd {
        unit: u64,
        bytes: u64,
    },
}

impl Start {
    pub(super) fn resolve(self, capacity: u64) -> Option<u64> {
        match self {
            Self::At(at) => Some(at),
            Self::BeforeEnd { unit, bytes } => (capacity - capacity % unit).checked_sub(bytes),
        }
    }
}

/// Where a structure has its identity, from its start.
#[derive(Debug, Clone, Copy)]
pub(super) enum Identity {
    Binary(u64),
    /// The first three fields little-endian, as Microsoft and EFI write them.
    MixedEndian(u64),
    Text(u64, usize),
}

/// One format: wherever it may start, the bytes at an offset that tell it, and names at offsets and lengths.
#[derive(Debug)]
pub(super) struct Format {
    pub(super) kind: Kind,
    pub(super) starts: &'static [Start],
    pub(super) magic: (u64, &'static [u8]),
    pub(super) identity: Option<Identity>,
    pub(super) label: Option<(u64, usize)>,
}

const fn format(kind: Kind, starts: &'static [Start], offset: u64, magic: &'static [u8]) -> Format {
    Format {
        kind,
        starts,
        magic: (offset, magic),
        identity: None,
        label: None,
    }
}

impl Format {
    const fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    const fn label(mut self, offset: u64, len: usize) -> Self {
        self.label = Some((offset, len));
        self
    }
}

/// Swap space made for a page size has its magic at the end of the first page.
const fn swap(page: u64) -> Format {
    format(Kind::Swap, FIRST, page - 10, b"SWAPSPACE2")
        .identity(Binary(1036))
        .label(1052, 16)
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const FIRST: &[Start] = &[At(0)];
const LAST_PAGE: &[Start] = &[BeforeEnd {
    unit: 4096,
    bytes: 4096,
}];
/// The header's second copy follows the first, whose size is one of these.
const LUKS_SECOND: &[Start] = &[
    At(16 * KIB),
    At(32 * KIB),
    At(64 * KIB),
    At(128 * KIB),
    At(256 * KIB),
    At(512 * KIB),
    At(MIB),
    At(2 * MIB),
];
/// md 0.90 is 64 KiB or more before the end, 1.0 8 KiB or more, 1.1 at the start, 1.2 behind the first page.
const MD_OLD: &[Start] = &[BeforeEnd {
    unit: 64 * KIB,
    bytes: 64 * KIB,
}];
const MD: &[Start] = &[
    At(0),
    At(4096),
    BeforeEnd {
        unit: 4096,
        bytes: 8 * KIB,
    },
];
const GPT: &[Start] = &[
    At(512),
    At(4096),
    BeforeEnd {
        unit: 512,
        bytes: 512,
    },
    BeforeEnd {
        unit: 4096,
        bytes: 4096,
    },
];
const LVM: &[Start] = &[At(0), At(512), At(1024), At(1536)];

pub(super) const FORMATS: &[Format] = &[
    format(Kind::Ext, &[At(1024)], 56, &[0x53, 0xef])
        .identity(Binary(104))
        .label(120, 16),
    format(Kind::Xfs, FIRST, 0, b"XFSB")
        .identity(Binary(32))
        .label(108, 12),
    format(Kind::Btrfs, &[At(64 * KIB)], 64, b"_BHRfS_M")
        .identity(Binary(32))
        .label(0x12b, 256),
    swap(4096),
    swap(8192),
    swap(16384),
    swap(32768),
    swap(65536),
    format(Kind::Swap, FIRST, 4096 - 10, b"SWAP-SPACE"),
    format(Kind::Lvm, LVM, 24, b"LVM2 001").identity(Text(32, 32)),
    format(Kind::Md, MD, 0, &[0xfc, 0x4e, 0x2b, 0xa9])
        .identity(Binary(16))
        .label(32, 32),
    format(Kind::Md, MD_OLD, 0, &[0xfc, 0x4e, 0x2b, 0xa9]),
    format(Kind::Md, MD_OLD, 0, &[0xa9, 0x2b, 0x4e, 0xfc]),
    format(Kind::Luks, FIRST, 0, b"LUKS\xba\xbe\x00\x01").identity(Text(168, 40)),
    format(Kind::Luks, FIRST, 0, b"LUKS\xba\xbe\x00\x02")
        .identity(Text(168, 40))
        .label(24, 48),
    format(Kind::Luks, LUKS_SECOND, 0, b"SKUL\xba\xbe")
        .identity(Text(168, 40))
        .label(24, 48),
    format(
        Kind::Bcache,
        &[At(4096)],
        24,
        &[
            198, 133, 115, 246, 78, 26, 69, 202, 130, 101, 245, 127, 72, 186, 109, 129,
        ],
    )
    .identity(Binary(40))
    .label(72, 32),
    format(
        Kind::Bcachefs,
        &[At(4096)],
        24,
        &[
            198, 133, 115, 246, 102, 206, 144, 169, 217, 106, 96, 207, 128, 61, 247, 239,
        ],
    )
    .identity(Binary(56))
    .label(72, 32),
    format(Kind::Drbd, LAST_PAGE, 60, &[0x83, 0x74, 0x02, 0x6b]),
    format(Kind::Drbd, LAST_PAGE, 60, &[0x83, 0x74, 0x02, 0x6c]),
    format(Kind::Drbd, LAST_PAGE, 60, &[0x83, 0x74, 0x02, 0x6d]),
    format(Kind::Ntfs, FIRST, 3, b"NTFS    "),
    format(Kind::ExFat, FIRST, 3, b"EXFAT   "),
    format(Kind::Refs, FIRST, 3, b"ReFS\0"),
    format(Kind::BitLocker, FIRST, 3, b"-FVE-FS-"),
    format(Kind::Fat, FIRST, 0x36, b"FAT12   ").label(0x2b, 11),
    format(Kind::Fat, FIRST, 0x36, b"FAT16   ").label(0x2b, 11),
    format(Kind::Fat, FIRST, 0x52, b"FAT32   ").label(0x47, 11),
    format(Kind::Iso9660, &[At(32 * KIB)], 1, b"CD001").label(40, 32),
    format(
        Kind::Udf,
        &[At(32 * KIB), At(34 * KIB), At(36 * KIB)],
        1,
        b"BEA01",
    ),
    format(Kind::F2fs, &[At(1024)], 0, &[0x10, 0x20, 0xf5, 0xf2]).identity(Binary(108)),
    format(Kind::Erofs, &[At(1024)], 0, &[0xe2, 0xe1, 0xf5, 0xe0]).identity(Binary(48)),
    format(
        Kind::Nilfs,
        &[
            At(1024),
            BeforeEnd {
                unit: 4096,
                bytes: 4096,
            },
        ],
        6,
        &[0x34, 0x34],
    )
    .identity(Binary(152)),
    format(Kind::ReiserFs, &[At(64 * KIB)], 52, b"ReIsEr")
        .identity(Binary(84))
        .label(100, 16),
    format(Kind::Jfs, &[At(32 * KIB)], 0, b"JFS1")
        .identity(Binary(136))
        .label(152, 16),
    format(Kind::Gfs2, &[At(64 * KIB)], 0, &[0x01, 0x16, 0x19, 0x70]),
    format(
        Kind::Ocfs2,
        &[At(1024), At(2048), At(4096), At(8192)],
        0,
        b"OCFSV2",
    ),
    format(Kind::Squashfs, FIRST, 0, b"hsqs"),
    format(Kind::HfsPlus, &[At(1024)], 0, b"H+\0\x04"),
    format(Kind::HfsPlus, &[At(1024)], 0, b"HX\0\x05"),
    format(Kind::Apfs, FIRST, 32, b"NXSB").identity(Binary(72)),
    format(Kind::BlueStore, FIRST, 0, b"bluestore block device").identity(Text(23, 36)),
    format(
        Kind::Stratis,
        &[At(512), At(4608)],
        4,
        b"!Stra0tis\x86\xff\x02^\x41rh",
    ),
    format(Kind::Vdo, FIRST, 0, b"dmvdo001"),
    format(Kind::Vmfs, &[At(MIB)], 0, &[0x0d, 0xd0, 0x01, 0xc0]),
    format(Kind::Vmfs, &[At(2 * MIB)], 0, &[0x5e, 0xf1, 0xab, 0x2f]),
    format(Kind::Gpt, GPT, 0, b"EFI PART").identity(MixedEndian(56)),
];
