//! Words that every layer shares: sizes and ranges of bytes, numbers of objects, emulation types.

pub mod bytes;
pub mod crc;
pub mod extent;
pub mod geometry;
pub mod ids;
pub mod range;
pub mod range_set;
pub mod sealed;

pub use bytes::ByteSize;
pub use extent::Extent;
pub use geometry::EmulationType;
pub use ids::{
    ApplianceId, CommitId, DeviceId, DeviceNumber, ExportId, GroupId, GroupNumber, IdSource, LogId,
    LogicalDeviceNumber, OperationId, VolumeId, VolumeNumber,
};
pub use range::ByteRange;
pub use range_set::RangeSet;
