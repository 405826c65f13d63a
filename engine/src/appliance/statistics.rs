//! What was asked of volumes, devices and exports since the start.

use std::sync::Arc;

use super::Appliance;
use crate::statistics::{Activity, Counters};
use crate::types::{DeviceId, ExportId, VolumeId};

/// What was asked of everything that serves. What was asked nothing is left out; counts begin anew with each start, and
/// a device's with each opening.
#[derive(Debug, Clone, Default)]
pub struct Statistics {
    pub volumes: Vec<(VolumeId, Activity)>,
    pub devices: Vec<(DeviceId, Activity)>,
    /// Timed from the whole request's arrival to its reply's being ready.
    pub exports: Vec<(ExportId, Activity)>,
}

impl Appliance {
    /// Sums what all threads have counted. Costs nothing to those that count.
    pub fn statistics(&self) -> Statistics {
        let volumes = self.volumes.borrow();
        let volumes = volumes
            .values()
            .filter_map(|volume| Some((volume.id(), volume.activity()?)));
        let present = self.ledger.present();
        let devices = present
            .iter()
            .filter_map(|(id, present)| Some((*id, present.handle.activity()?)));
        let exports = self.export_counters.borrow();
        let exports = exports
            .iter()
            .filter_map(|(id, counters)| Some((*id, counters.sum()?)));
        Statistics {
            volumes: volumes.collect(),
            devices: devices.collect(),
            exports: exports.collect(),
        }
    }

    /// The counters of an export.
    pub(super) fn export_counters(&self, id: ExportId) -> Arc<Counters> {
        let mut counters = self.export_counters.borrow_mut();
        Arc::clone(counters.entry(id).or_default())
    }
}

#[cfg(test)]
mod tests {
    use crate::appliance::tests::{Bench, VOLUME, device_id, flush, read, run, write};
    use crate::raid::Level;
    use crate::statistics::Kind;

    #[test]
    fn volumes_and_devices_tell_what_was_asked_of_them_and_errors_count_apart() {
        run(async {
            let bench = Bench::new(3);
            let appliance = bench.create(Level::Raid1, 2).await;
            assert!(appliance.statistics().volumes.is_empty());
            for _ in 0..3 {
                write(&appliance, 0, 0, 1, 8192).await.unwrap();
            }
            read(&appliance, 0, 0, 4096).await;
            flush(&appliance, 0).await;
            write(&appliance, 0, 100, 1, 512).await.unwrap_err();
            let statistics = appliance.statistics();
            let [(id, volume)] = &statistics.volumes[..] else {
                panic!("{statistics:?}");
            };
            assert_eq!(*id, VOLUME);
            let writes = volume.of(Kind::Write);
            assert_eq!(
                (writes.requests, writes.errors, writes.bytes),
                (4, 1, 3 * 8192 + 512)
            );
            assert_eq!(volume.of(Kind::Read).bytes, 4096);
            assert_eq!(volume.of(Kind::Flush).requests, 1);
            assert_eq!(writes.latencies.iter().sum::<u64>(), 1);
            let members = statistics.devices.iter().filter(|(id, _)| *id != device_id(2));
            for (_, device) in members {
                assert!(device.of(Kind::Write).bytes >= 3 * 8192);
                assert_eq!(device.of(Kind::Write).errors, 0);
            }
        });
    }
}
