//! How fast one core computes the sums of a row of four columns of 64 KiB: beside ISA-L at least 0.9 times as fast.
//!
//! The time is that on the processor, for a machine may do other things too. Everything takes turns within one run, once on a row that stays in the processor's cache and once on rows that come
//! from memory. Copying and reading the same memory show what it gives. ISA-L is Debian's package `libisal2`; where it
//! is not installed, its lines are missing and the bench says so.
//!
//! A rate is that of what goes in besides the sums: of the data columns, of the old and the new content of an update,
//! of what is there in a recovery.
#![expect(unsafe_code, reason = "ISA-L is a C library")]

use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

use ashlar_engine::io::IoBuf;
use ashlar_engine::raid::parity::code::{Code, Column, Recovery, Row, Sums};
use libloading::Library;
use rustix::time::{ClockId, clock_gettime};

const UNIT: usize = 64 << 10;
const COLUMNS: usize = 4;
/// The buffers of a row: its columns, P, Q.
const BUFFERS: usize = COLUMNS + 2;
/// 576 MiB: more than any processor's cache.
const ROWS: usize = 1536;
const TURNS: usize = 9;
const OF_A_TURN: Duration = Duration::from_millis(40);

type Buffers<'a> = [&'a mut [u8]; BUFFERS];

struct Task {
    name: String,
    /// Bytes that count, of each run.
    bytes: usize,
    run: Box<dyn Fn(Buffers<'_>)>,
    /// The task of ISA-L that does the same.
    peer: Option<&'static str>,
}

impl Task {
    fn new(name: impl Into<String>, columns: usize, run: impl Fn(Buffers<'_>) + 'static) -> Self {
        Self {
            name: name.into(),
            bytes: columns * UNIT,
            run: Box::new(run),
            peer: None,
        }
    }

    fn beside(self, peer: &'static str) -> Self {
        Self {
            peer: Some(peer),
            ..self
        }
    }
}

const COPY: &str = "copy";
const ISAL_P: &str = "P, ISA-L";
const ISAL_PQ: &str = "P+Q, ISA-L";

/// The functions of ISA-L: number of buffers, bytes of each, the buffers with the sums at the end.
type Generate = unsafe extern "C" fn(c_int, c_int, *mut *mut c_void) -> c_int;

fn isal() -> Result<Vec<Task>, libloading::Error> {
    // SAFETY: loading ISA-L runs no code but the choice of functions for this processor.
    let library = Rc::new(unsafe { Library::new("libisal.so.2") }?);
    let task = |name: &str, function: &[u8], sums: usize| {
        // SAFETY: this is the type of both functions in <isa-l/raid.h>. The library stays loaded as long as the task.
        let generate = *unsafe { library.get::<Generate>(function) }?;
        let library = Rc::clone(&library);
        let run = move |buffers: Buffers<'_>| {
            let _stays_loaded = &library;
            let mut pointers = buffers.map(|buffer| buffer.as_mut_ptr().cast::<c_void>());
            let count = c_int::try_from(COLUMNS + sums).expect("few");
            let len = c_int::try_from(UNIT).expect("small");
            // SAFETY: there are so many buffers of so many bytes, aligned to more than 32, and nobody else has them.
            assert_eq!(
                unsafe { generate(count, len, pointers.as_mut_ptr()) },
                0,
                "accepted"
            );
        };
        Ok(Task::new(name, COLUMNS, run))
    };
    Ok(vec![task(ISAL_P, b"xor_gen", 1)?, task(ISAL_PQ, b"pq_gen", 2)?])
}

fn sums(code: Code, [a, b, c, d, p, q]: Buffers<'_>, with_q: bool) {
    let into = Sums {
        p: Some(p),
        q: with_q.then_some(q),
    };
    code.sums(into, &[Some(a), Some(b), Some(c), Some(d)]);
}

fn update(code: Code, [old, new, _, _, p, q]: Buffers<'_>) {
    let sums = Sums {
        p: Some(p),
        q: Some(q),
    };
    code.update(sums, 2, old, new);
}

fn recover(code: Code, recovery: Recovery, [a, b, c, d, p, q]: Buffers<'_>) {
    let row = Row {
        data: &[Some(a), None, None, Some(d)],
        p: Some(p),
        q: Some(q),
    };
    code.recover(recovery, row, [Some(b), Some(c)]);
}

fn ours(code: Code) -> [Task; 4] {
    let name = |what| format!("{what}, {}", code.name());
    let recovery = Recovery::of(Column::Data(1), Some(Column::Data(2)));
    [
        Task::new(name("P"), COLUMNS, move |row| sums(code, row, false)).beside(ISAL_P),
        Task::new(name("P+Q"), COLUMNS, move |row| sums(code, row, true)).beside(ISAL_PQ),
        Task::new(name("update of P+Q"), 2, move |row| update(code, row)),
        Task::new(name("recovery of 2"), COLUMNS, move |row| {
            recover(code, recovery, row);
        }),
    ]
}

fn read(bytes: &[u8]) -> u64 {
    let (words, _) = bytes.as_chunks::<8>();
    words
        .iter()
        .map(|word| u64::from_ne_bytes(*word))
        .fold(0, |sum, word| sum ^ word)
}

fn memory_alone() -> [Task; 2] {
    let copy = |[from, _, _, _, into, _]: Buffers<'_>| into.copy_from_slice(from);
    [
        Task::new(COPY, 1, copy),
        Task::new("read", COLUMNS, |buffers| {
            for column in &buffers[..COLUMNS] {
                black_box(read(column));
            }
        }),
    ]
}

/// The row with this number.
fn row(memory: &mut [u8], number: usize) -> Buffers<'_> {
    let row = &mut memory[number * BUFFERS * UNIT..][..BUFFERS * UNIT];
    let mut buffers = row.chunks_exact_mut(UNIT);
    std::array::from_fn(|_| buffers.next().expect("a row has so many"))
}

/// How long this thread had its processor.
fn time_on_processor() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.try_into().expect("it runs forward from zero")
}

/// GB/s over so many rows, again and again.
fn rate(task: &Task, memory: &mut [u8], rows: usize) -> f64 {
    (task.run)(row(memory, 0));
    let (start, mut runs) = (time_on_processor(), 0);
    loop {
        for _ in 0..16 {
            (task.run)(row(memory, runs % rows));
            runs += 1;
        }
        let took = time_on_processor() - start;
        if took >= OF_A_TURN {
            return (runs * task.bytes) as f64 / took.as_secs_f64() / 1e9;
        }
    }
}

/// Both sides compute the same, or their rates say nothing.
fn check_same(tasks: &[Task], memory: &mut [u8]) {
    for task in tasks {
        let Some(peer) = tasks.iter().find(|peer| Some(&*peer.name) == task.peer) else {
            continue;
        };
        let [ours, theirs] = [task, peer].map(|task| {
            let mut buffers = row(memory, 0);
            buffers[COLUMNS..].iter_mut().for_each(|sum| sum.fill(0));
            (task.run)(buffers);
            row(memory, 0)[COLUMNS..].concat()
        });
        assert!(ours == theirs, "{} differs from {}", task.name, peer.name);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The median of the turns' ratios.
fn ratio(rates: &[f64], of: Option<&[f64]>) -> String {
    let ratios = |of: &[f64]| rates.iter().zip(of).map(|(rate, of)| rate / of).collect();
    of.map_or("–".into(), |of| format!("{:.2}", median(ratios(of))))
}

fn report(place: &str, tasks: &[Task], rates: &[Vec<f64>]) {
    println!("\n### {place}\n\n| | GB/s | ÷ ISA-L | ÷ copy |\n|---|---|---|---|");
    let of = |name| {
        let at = tasks.iter().position(|task| Some(&*task.name) == name)?;
        Some(&*rates[at])
    };
    for (task, rates) in tasks.iter().zip(rates) {
        let (least, most) = (
            rates.iter().copied().fold(f64::MAX, f64::min),
            rates.iter().copied().fold(0.0, f64::max),
        );
        println!(
            "| {} | {:.1} ({least:.1}–{most:.1}) | {} | {} |",
            task.name,
            median(rates.clone()),
            ratio(rates, of(task.peer)),
            ratio(rates, of(Some(COPY))),
        );
    }
}

fn main() {
    let mut tasks = Vec::from(memory_alone());
    match isal() {
        Ok(theirs) => tasks.extend(theirs),
        Err(error) => println!("ISA-L is NOT measured: install Debian's libisal2 ({error})"),
    }
    tasks.extend(Code::all().flat_map(ours));
    let mut memory = IoBuf::zeroed(ROWS * BUFFERS * UNIT);
    let mut noise = 1u64;
    for word in memory.as_mut_slice().as_chunks_mut::<8>().0 {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *word = noise.to_ne_bytes();
    }
    check_same(&tasks, memory.as_mut_slice());
    let mut rates = [1, ROWS].map(|rows| (rows, vec![Vec::new(); tasks.len()]));
    for _turn in 0..TURNS {
        for (rows, rates) in &mut rates {
            for (task, rates) in tasks.iter().zip(rates) {
                rates.push(rate(task, memory.as_mut_slice(), *rows));
            }
        }
    }
    for (rows, rates) in &rates {
        let place = if *rows == 1 {
            "One row, in the cache"
        } else {
            "Rows from memory"
        };
        report(place, &tasks, rates);
    }
}
