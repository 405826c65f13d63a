//! A small appliance with something of everything, whose objects have ids that tests know.
//!
//! ```text
//!   device 0 ┐                device 2   free         group 1 (RAID 0): device 4
//!   device 1 ┴ group 0 (RAID 1)  device 3   free         group 2 (RAID 1): device 5, device 6
//!              └ volume 0 `vol0`, exported as `vol0` (export 0)
//!              └ volume 1 `spare`, whole · volume 2 `partial`, its first half mapped
//! ```

use std::path::Path;

use serde_json::{Value, json};

use crate::api::Api;
use crate::appliance::MIB;
use crate::server::Home;

/// Bytes of each device.
pub const DEVICE: u64 = 64 * MIB;
/// Bytes of each volume.
pub const VOLUME: u64 = 8 * MIB;

pub fn device_id(number: u32) -> String {
    format!("00000000-0000-4000-8000-0000000d{number:04x}")
}

pub fn group_id(number: u32) -> String {
    format!("00000000-0000-4000-8000-0000000a{number:04x}")
}

pub fn volume_id(number: u32) -> String {
    format!("00000000-0000-4000-8000-0000000b{number:04x}")
}

pub fn export_id(number: u32) -> String {
    format!("00000000-0000-4000-8000-0000000e{number:04x}")
}

/// A device that is a file, to be made where a size is given.
pub fn file_source(path: &Path, size: Option<u64>) -> Value {
    let mut source = json!({"kind": "file", "path": path});
    if let Some(size) = size {
        source["size_bytes"] = json!(size);
    }
    source
}

/// An empty file of a device's size.
pub fn empty_file(path: &Path) {
    let file = std::fs::File::create_new(path).expect("the file can be made");
    file.set_len(DEVICE).expect("the file can be made longer");
}

/// Adds the device with this number, as a file that is made.
pub fn add_device(home: &Home, api: &Api, number: u32) {
    let source = file_source(&home.device(&number.to_string()), Some(DEVICE));
    api.post("/devices", &json!({"id": device_id(number), "source": source}))
        .granted();
}

/// Makes a group of these devices.
pub fn create_group(api: &Api, number: u32, level: &str, members: &[u32]) {
    let members: Vec<_> = members.iter().copied().map(device_id).collect();
    let new = json!({"id": group_id(number), "level": level, "members": members, "slice_length_bytes": MIB});
    api.post("/raid-groups", &new).granted();
}

/// Makes a whole volume on group 0.
pub fn create_volume(api: &Api, number: u32, name: &str) {
    let new = json!({
        "id": volume_id(number), "name": name, "capacity_bytes": VOLUME, "raid_group": group_id(0),
    });
    api.post("/volumes", &new).granted();
}

/// Exports a volume under its name.
pub fn create_export(api: &Api, number: u32, volume: u32) {
    let new = json!({"id": export_id(number), "volume": volume_id(volume)});
    api.post("/exports", &new).granted();
}

/// Two devices, mirrored in group 0, and its volume 0, exported as `vol0`.
pub fn small(home: &Home, api: &Api) {
    add_device(home, api, 0);
    add_device(home, api, 1);
    api.with("if-match", "*")
        .patch("/appliance", &json!({"smallest_volume_bytes": MIB}))
        .granted();
    create_group(api, 0, "1", &[0, 1]);
    create_volume(api, 0, "vol0");
    create_export(api, 0, 0);
}

/// All that the module's picture shows.
pub fn whole(home: &Home, api: &Api) {
    small(home, api);
    for number in 2..7 {
        add_device(home, api, number);
    }
    create_group(api, 1, "0", &[4]);
    create_group(api, 2, "1", &[5, 6]);
    create_volume(api, 1, "spare");
    let half = json!({
        "id": volume_id(2), "name": "partial", "capacity_bytes": VOLUME,
        "placements": [{"range": {"offset": 0, "length": VOLUME / 2}, "raid_group": group_id(0)}],
    });
    api.post("/volumes", &half).granted();
    api.post(&format!("/devices/{}/fail", device_id(6)), &Value::Null)
        .granted();
}
