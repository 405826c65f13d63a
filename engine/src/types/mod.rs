//! Words that every layer shares: ranges of bytes, numbers of objects, emulation types.

pub mod ids;
pub mod range;

pub use ids::{
    ApplianceId, CommitId, DeviceId, DeviceNumber, ExportId, GroupId, GroupNumber, IdSource,
    LogicalDeviceNumber, VolumeId, VolumeNumber,
};
pub use range::ByteRange;
