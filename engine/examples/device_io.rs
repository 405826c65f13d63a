//! Measures one direct file through the device trait: `device_io PATH read|write DEPTH SECONDS [direct|buffered]`.
//! Prints IOPS and this process's CPU per operation. The file must exist; its content is overwritten.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ashlar_engine::device::{CachePolicy, Device, OpenOptions, Request, file, start};
use ashlar_engine::io::IoBuf;
use ashlar_engine::runtime::DataPlane;
use ashlar_engine::types::IdSource;

const BLOCK: usize = 4096;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let [_, path, kind, depth, seconds, rest @ ..] = &words[..] else {
        eprintln!("usage: device_io PATH read|write DEPTH SECONDS [direct|buffered]");
        std::process::exit(2);
    };
    let cache = if rest.first().is_some_and(|word| word == "buffered") {
        CachePolicy::Buffered
    } else {
        CachePolicy::Direct
    };
    let options = OpenOptions {
        cache: Some(cache),
        ..OpenOptions::default()
    };
    let device = file::adopt(Path::new(path), &options).expect("the file can be opened");
    let (depth, seconds) = (depth.parse().expect("a depth"), seconds.parse().expect("seconds"));
    let write = kind == "write";
    let plane = DataPlane::start(1).expect("a thread");
    let before = cpu_seconds();
    let count = plane.run_on(0, move || measure(device, write, depth, seconds));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let count = runtime.block_on(count).expect("it ran");
    let cpu = cpu_seconds() - before;
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let count = count as f64;
    println!(
        "{kind} depth {depth}: {:.0} IOPS, {:.2} us CPU per operation",
        count / seconds,
        cpu * 1e6 / count
    );
}

async fn measure(device: impl Device, write: bool, depth: usize, seconds: f64) -> u64 {
    let device = Rc::new(device);
    let (count, over) = (Rc::new(Cell::new(0u64)), Rc::new(Cell::new(false)));
    let tasks: Vec<_> = (0..depth)
        .map(|seed| {
            tokio::task::spawn_local(one_by_one(
                device.clone(),
                write,
                seed as u64,
                count.clone(),
                over.clone(),
            ))
        })
        .collect();
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    over.set(true);
    for task in tasks {
        task.await.expect("no panic");
    }
    count.get()
}

async fn one_by_one(
    device: Rc<impl Device>,
    write: bool,
    seed: u64,
    count: Rc<Cell<u64>>,
    over: Rc<Cell<bool>>,
) {
    let places = IdSource::from_seed(seed);
    let blocks = device.info().capacity / BLOCK as u64;
    let data = IoBuf::from_slice(&[0x5a; BLOCK]).into_slice();
    while !over.get() {
        let at = places.below(blocks) * BLOCK as u64;
        let request = if write {
            Request::Write {
                at,
                data: data.clone(),
                fua: false,
            }
        } else {
            Request::Read {
                at,
                buf: IoBuf::new(BLOCK),
            }
        };
        start(&*device, request).await.result.expect("it succeeds");
        count.set(count.get() + 1);
    }
}

/// CPU of all threads of this process, the kernel's workers for it included.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let after_name = stat.rsplit(')').next().expect("has a name");
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}
