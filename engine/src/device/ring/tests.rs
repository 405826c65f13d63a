//! The ring over pipes, which answer exactly when the test wants.

use std::io::{PipeReader, PipeWriter, Read as _, Write as _, pipe};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use futures_util::FutureExt as _;

use super::*;
use crate::device::operation::Work;
use crate::device::slots::Io;
use crate::io::IoBuf;

fn on_data_thread<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

fn read(from: PipeReader, len: usize) -> Io {
    let work = Work::Read(IoBuf::zeroed(len));
    Io::new(start(
        Operation::new(Arc::new(OwnedFd::from(from)), 0, work),
        Some(Duration::from_secs(1)),
    ))
}

fn write(to: PipeWriter, data: IoBuf) -> Io {
    let work = Work::Write {
        data: data.into_slice(),
        fua: false,
    };
    Io::new(start(
        Operation::new(Arc::new(OwnedFd::from(to)), 0, work),
        Some(Duration::from_secs(1)),
    ))
}

/// Gives every ready task, the driver among them, its turn.
async fn let_others_run() {
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
}

fn ring_is_empty() -> bool {
    RING.with_borrow(|ring| {
        ring.as_ref()
            .is_none_or(|ring| ring.free.len() == ring.flights.len())
    })
}

#[test]
fn an_answer_completes_its_operation() {
    on_data_thread(async {
        let (from, mut to) = pipe().unwrap();
        let mut answer = read(from, 4);
        let_others_run().await;
        assert!((&mut answer).now_or_never().is_none());
        to.write_all(b"abcd").unwrap();
        let answer = answer.await;
        assert_eq!(answer.result, Ok(()));
        assert_eq!(answer.buf.unwrap().as_slice(), b"abcd");
    });
}

#[test]
fn the_rest_of_a_short_read_is_read() {
    on_data_thread(async {
        let (from, mut to) = pipe().unwrap();
        let mut answer = read(from, 8);
        to.write_all(b"abc").unwrap();
        let_others_run().await;
        assert!((&mut answer).now_or_never().is_none());
        to.write_all(b"defgh").unwrap();
        assert_eq!(answer.await.buf.unwrap().as_slice(), b"abcdefgh");
        let (from, mut to) = pipe().unwrap();
        let answer = read(from, 8);
        to.write_all(b"abc").unwrap();
        drop(to);
        assert_eq!(answer.await.result, Err(DeviceError::Short));
    });
}

#[test]
fn the_memory_of_a_write_that_nobody_waits_for_stays_as_it_was() {
    on_data_thread(async {
        let (mut from, mut to) = pipe().unwrap();
        let capacity = 64 << 10;
        to.write_all(&vec![0; capacity]).unwrap();
        drop(write(to, IoBuf::from_slice(&[0xaa; 16 << 10])));
        let_others_run().await;
        let others: Vec<IoBuf> = (0..100).map(|_| IoBuf::from_slice(&[0xee; 16 << 10])).collect();
        let mut drained = vec![0; capacity];
        from.read_exact(&mut drained).unwrap();
        while !ring_is_empty() {
            tokio::task::yield_now().await;
        }
        let mut written = Vec::new();
        from.read_to_end(&mut written).unwrap();
        assert_eq!(written, vec![0xaa; 16 << 10]);
        drop(others);
    });
}

#[test]
fn the_memory_of_a_read_that_nobody_waits_for_belongs_to_nobody_else() {
    on_data_thread(async {
        let (from, mut to) = pipe().unwrap();
        drop(read(from, 4096));
        let_others_run().await;
        let others: Vec<IoBuf> = (0..100).map(|_| IoBuf::from_slice(&[0xee; 4096])).collect();
        to.write_all(&[0x11; 4096]).unwrap();
        while !ring_is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(others.iter().all(|buf| buf.as_slice() == [0xee; 4096]));
    });
}

#[test]
fn an_operation_that_is_not_answered_times_out_and_its_late_answer_is_forgotten() {
    on_data_thread(async {
        let (from, mut to) = pipe().unwrap();
        let mut answer = read(from, 4);
        assert!((&mut answer).now_or_never().is_none());
        let_others_run().await;
        (0..10).for_each(|_| slots::tick());
        assert_eq!(answer.await.result, Err(DeviceError::Timeout));
        assert!(!ring_is_empty());
        to.write_all(b"late").unwrap();
        while !ring_is_empty() {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_ring_that_ends_with_its_runtime_answers_and_the_next_one_gets_another() {
    let (from, to) = pipe().unwrap();
    let mut unanswered = None;
    on_data_thread(async {
        unanswered = Some(read(from, 4));
        let_others_run().await;
    });
    let completion = unanswered
        .and_then(Io::now_or_never)
        .expect("completed by the ring's end");
    assert!(matches!(completion.result, Err(DeviceError::Gone(_))));
    assert_eq!(completion.buf.unwrap().len(), 4);
    drop(to);
    on_data_thread(async {
        let (from, mut to) = pipe().unwrap();
        to.write_all(b"next").unwrap();
        assert_eq!(read(from, 4).await.buf.unwrap().as_slice(), b"next");
    });
}

#[test]
fn more_operations_than_the_kernel_takes_at_once_are_all_answered() {
    let count = COMPLETION_ENTRIES as usize + 1000;
    on_data_thread(async {
        let (from, mut to) = pipe().unwrap();
        let from = Arc::new(OwnedFd::from(from));
        let answers: Vec<Io> = (0..count)
            .map(|_| {
                let work = Work::Read(IoBuf::zeroed(1));
                Io::new(start(Operation::new(from.clone(), 0, work), None))
            })
            .collect();
        let_others_run().await;
        RING.with_borrow(|ring| {
            let ring = ring.as_ref().expect("in use");
            assert_eq!((ring.entered, ring.waiting.len()), (COMPLETION_ENTRIES, 1000));
        });
        to.write_all(&vec![7; count]).unwrap();
        for answer in answers {
            let answer = answer.await;
            assert_eq!(
                (answer.result, answer.buf.unwrap().as_slice()),
                (Ok(()), &[7][..])
            );
        }
    });
}
