//! What the simulated device does with operations, faults and the crash.

use super::*;
use crate::device::start;
use crate::io::IoBuf;
use crate::sim::image::Background;
use crate::sim::life;

const SHAPE: DiskShape = DiskShape {
    capacity: 1 << 20,
    block: 512,
    inline_percent: 0,
    zeroes_fast: true,
    volatile_cache: true,
    background: Background::Zeros,
    checked: None,
};

fn write(at: u64, byte: u8) -> Request {
    let data = IoBuf::from_slice(&[byte; 512]).into_slice();
    Request::Write { at, data, fua: false }
}

async fn read(device: &SimDevice, at: u64) -> Result<u8, DeviceError> {
    let buf = IoBuf::new(512);
    let ended = start(device, Request::Read { at, buf }).await;
    ended
        .result
        .map(|()| ended.buf.expect("a read has a buffer").as_slice()[0])
}

/// Runs one life with one device, which ends at the crash or with the test.
fn live(seed: u64, test: impl AsyncFnOnce(SimDevice, Arc<Stage>)) {
    let stage = Stage::new(seed, false);
    let device = SimDevice::new(0, SHAPE, stage.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        stage.begin_life();
        life::spawn_machinery(&stage);
        test(device, stage.clone()).await;
    });
    slots::reset();
}

#[test]
fn operations_that_run_together_complete_in_any_order() {
    let orders = |seed| {
        let (first, second) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
        live(seed, async |device, _| {
            let turn = std::cell::Cell::new(0);
            let run = async |at, place: &std::cell::Cell<u32>| {
                assert_eq!(start(&device, write(at, 1)).await.result, Ok(()));
                turn.set(turn.get() + 1);
                place.set(turn.get());
            };
            futures_util::future::join(run(0, &first), run(512, &second)).await;
        });
        first.get() < second.get()
    };
    let seen: std::collections::BTreeSet<bool> = (0..20).map(orders).collect();
    assert_eq!(seen.len(), 2);
}

#[test]
fn nothing_completes_after_the_crash() {
    live(1, async |device, stage| {
        stage.arm(2);
        assert_eq!(start(&device, write(0, 1)).await.result, Ok(()));
        stage.crashed().await;
        let late = start(&device, write(512, 1));
        let waited = tokio::time::timeout(Duration::from_secs(60), late).await;
        assert!(waited.is_err(), "not even a time-out comes");
    });
}

#[test]
fn a_dead_device_fails_everything_until_it_heals() {
    live(1, async |device, _| {
        device.hurt(Fault::Death);
        assert!(start(&device, write(0, 1)).await.result.is_err());
        assert!(!device.intact() && !device.answers());
        device.heal();
        assert!(!device.intact(), "the program may not have noticed");
        device.noticed();
        assert!(device.intact());
        assert!(read(&device, 0).await.is_ok());
    });
}

#[test]
fn a_stalled_operation_times_out_and_lands_when_the_stall_ends() {
    live(1, async |device, _| {
        device.hurt(Fault::Stall);
        assert_eq!(
            start(&device, write(0, 7)).await.result,
            Err(DeviceError::Timeout)
        );
        device.heal();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(read(&device, 0).await, Ok(7));
    });
}

#[test]
fn a_bad_sector_cannot_be_read_until_it_is_written() {
    live(1, async |device, _| {
        for block in 0..8 {
            assert_eq!(start(&device, write(block * 512, 1)).await.result, Ok(()));
        }
        device.hurt(Fault::BadSectors(1));
        let mut bad = Vec::new();
        for block in 0..8 {
            if read(&device, block * 512).await == Err(DeviceError::Medium) {
                bad.push(block);
            }
        }
        assert_eq!(bad.len(), 1);
        assert_eq!(start(&device, write(bad[0] * 512, 2)).await.result, Ok(()));
        assert_eq!(read(&device, bad[0] * 512).await, Ok(2));
        assert!(device.intact());
    });
}

#[test]
#[should_panic(expected = "writes over a write that is running")]
fn a_write_over_a_running_one_breaks_the_contract() {
    live(1, async |device, _| {
        let _first = start(&device, write(0, 1));
        let _second = start(&device, write(0, 2));
    });
}

#[test]
#[should_panic(expected = "does not fit")]
fn a_misaligned_write_breaks_the_contract() {
    live(1, async |device, _| drop(start(&device, write(100, 1))));
}

#[test]
fn a_lost_write_is_acknowledged_and_not_there() {
    let stage = Stage::new(1, false);
    let mut state = State {
        checked: vec![ByteRange::between(0, 4096)],
        medium: Medium::new(Background::Zeros),
        faults: Faults {
            lost_writes: 1,
            ..Faults::default()
        },
        running: BTreeMap::new(),
        parked: BTreeSet::new(),
    };
    let range = ByteRange::between(0, 512);
    state.medium.begin(1, range, Some(&[1; 512])).unwrap();
    stage.dice(|dice| assert_eq!(state.write(1, range, false, dice), Ok(())));
    let mut buf = IoBuf::new(512);
    state.read(0, &mut buf).unwrap();
    assert_eq!(buf.as_slice()[0], 0);
    assert!(!state.faults.intact());
}
