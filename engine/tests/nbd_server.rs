//! The NBD server from its byte stream to its target.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use ashlar_engine::export::nbd::listener::{ConnectionSpawner, ConnectionTask, bind_unix};
use ashlar_engine::export::nbd::server::{Server, Settings};
use ashlar_engine::export::{Access, Export, Polling, Registry};
use ashlar_engine::nbd::wire;
use ashlar_engine::statistics::{Counters, Kind};
use common::memory_target::MemoryTarget;
use common::raw_client::{RawClient, named, request, write};
use tokio::io::DuplexStream;
use tokio::task::LocalSet;

const CAPACITY: usize = 1 << 20;

struct Bench {
    target: Arc<MemoryTarget>,
    registry: Arc<Registry<MemoryTarget>>,
    server: Arc<Server<MemoryTarget>>,
    counters: Arc<Counters>,
}

impl Bench {
    fn new(target: MemoryTarget, shape: impl FnOnce(Export<MemoryTarget>) -> Export<MemoryTarget>) -> Self {
        let (target, registry) = (Arc::new(target), Arc::new(Registry::default()));
        let export = shape(Export::new("vol", Arc::clone(&target)));
        let counters = Arc::clone(&export.counters);
        registry.add(export).unwrap();
        let settings = Settings {
            max_connections: 3,
            ..Settings::default()
        };
        Self {
            target,
            server: Server::new(Arc::clone(&registry), settings),
            registry,
            counters,
        }
    }

    fn plain() -> Self {
        Self::new(MemoryTarget::new(CAPACITY), |export| export)
    }

    fn gated() -> Self {
        Self::new(MemoryTarget::gated(CAPACITY), |export| export)
    }

    /// A client whose connection buffers so many bytes each way.
    fn connect_through(&self, buffer: usize) -> RawClient<DuplexStream> {
        let (stream, far) = tokio::io::duplex(buffer);
        tokio::task::spawn_local(self.server.admit().unwrap().serve(far, None));
        RawClient { stream }
    }

    fn connect(&self) -> RawClient<DuplexStream> {
        self.connect_through(CAPACITY)
    }

    async fn attach(&self) -> RawClient<DuplexStream> {
        let mut client = self.connect();
        client.attach("vol").await;
        client
    }

    /// Until `count` writes have arrived at the target.
    async fn arrival(&self, count: u64) {
        while self.target.arrived() < count {
            tokio::task::yield_now().await;
        }
    }
}

/// Lets every other task go as far as it can.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

async fn local(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn pipelined_requests_are_all_answered() {
    local(async {
        let bench = Bench::plain();
        let mut client = bench.attach().await;
        let writes: Vec<u8> = (0..200)
            .flat_map(|n: u8| write(n.into(), u64::from(n) * 4096, &[n; 4096]))
            .collect();
        let (mut replies, mut n) = ([false; 200], 0);
        let (near, far) = tokio::io::split(client.stream);
        let (mut sender, mut receiver) = (
            RawClient {
                stream: tokio::io::join(tokio::io::empty(), far),
            },
            RawClient {
                stream: tokio::io::join(near, tokio::io::sink()),
            },
        );
        let send = sender.send(&writes);
        let receive = async {
            while n < 200 {
                let (cookie, errno) = receiver.reply().await;
                assert_eq!(errno, 0);
                replies[usize::try_from(cookie).unwrap()] = true;
                n += 1;
            }
        };
        tokio::join!(send, receive);
        assert!(replies.iter().all(|&answered| answered));
        let activity = bench.counters.sum().unwrap();
        let counted = activity.of(Kind::Write);
        assert_eq!(
            (counted.requests, counted.errors, counted.bytes),
            (200, 0, 200 * 4096)
        );
        client = RawClient {
            stream: receiver
                .stream
                .into_inner()
                .0
                .unsplit(sender.stream.into_inner().1),
        };
        for n in 0..200u8 {
            assert_eq!(client.read(u64::from(n) * 4096, 4096).await, [n; 4096]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_that_comes_byte_by_byte_is_served() {
    local(async {
        let bench = Bench::plain();
        let mut client = bench.connect_through(1);
        client.attach("vol").await;
        assert_eq!(client.call(&write(1, 512, &[7; 1024])).await, 0);
        assert_eq!(client.read(512, 1024).await, [7; 1024]);
    })
    .await;
}

#[tokio::test]
async fn a_write_of_the_largest_size_arrives_whole() {
    local(async {
        let bench = Bench::new(MemoryTarget::new(wire::MAX_PAYLOAD as usize), |export| export);
        let mut client = bench.attach().await;
        let payload: Vec<u8> = (0..wire::MAX_PAYLOAD).map(|n| (n / 512 % 251) as u8).collect();
        assert_eq!(client.call(&write(1, 0, &payload)).await, 0);
        assert!(client.read(0, payload.len()).await == payload);
    })
    .await;
}

#[tokio::test]
async fn bad_requests_get_their_error_and_the_connection_lives_on() {
    local(async {
        let mut client = Bench::plain().attach().await;
        let end = CAPACITY as u64;
        let oversized = vec![0; wire::MAX_PAYLOAD as usize + 512];
        let cases = [
            (request(0, wire::CMD_READ, 1, end, 512), wire::EINVAL),
            (request(0, wire::CMD_READ, 1, 1, 512), wire::EINVAL),
            (request(0, wire::CMD_READ, 1, 0, oversized.len()), wire::EINVAL),
            (request(0, wire::CMD_BLOCK_STATUS, 1, 0, 512), wire::EINVAL),
            (request(0, 77, 1, 0, 512), wire::EINVAL),
            (write(1, end, &[1; 512]), wire::ENOSPC),
            (write(1, 0, &[1; 511]), wire::EINVAL),
            (write(1, 0, &oversized), wire::EINVAL),
            (
                request(0, wire::CMD_WRITE_ZEROES, 1, end - 512, 1024),
                wire::ENOSPC,
            ),
        ];
        for (bytes, errno) in cases {
            assert_eq!(client.call(&bytes).await, errno);
        }
        assert_eq!(client.read(0, 512).await, [0; 512]);
    })
    .await;
}

#[tokio::test]
async fn garbage_closes_its_own_connection_only() {
    local(async {
        let bench = Bench::plain();
        let (mut good, mut bad) = (bench.attach().await, bench.attach().await);
        bad.send(&[0xaa; 100]).await;
        assert!(bad.is_closed().await);
        assert_eq!(good.read(0, 512).await, [0; 512]);
        assert_eq!(bench.server.connections(), 1);
    })
    .await;
}

#[tokio::test]
async fn an_unknown_export_is_refused_and_another_one_may_be_asked_for() {
    local(async {
        let mut client = Bench::plain().connect();
        client.greet().await;
        assert_eq!(
            client.ask(wire::OPT_GO, &named("none")).await,
            wire::REP_ERR_UNKNOWN
        );
        assert_eq!(client.ask(wire::OPT_GO, &named("vol")).await, wire::REP_ACK);
        assert_eq!(client.read(0, 512).await, [0; 512]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_negotiate_is_closed_in_time() {
    local(async {
        let bench = Bench::plain();
        let (mut silent, mut attached) = (bench.connect(), bench.attach().await);
        silent.greet().await;
        assert!(silent.is_closed().await);
        assert_eq!(attached.read(0, 512).await, [0; 512]);
        assert_eq!(bench.server.connections(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_new_client_of_an_exclusive_export_waits_for_the_old_ones_writes() {
    local(async {
        let bench = Bench::new(MemoryTarget::gated(CAPACITY), |export| Export {
            exclusive: true,
            ..export
        });
        let (mut old, mut new) = (bench.attach().await, bench.connect());
        old.send(&write(1, 0, &[1; 512])).await;
        bench.arrival(1).await;
        let attached = std::cell::Cell::new(false);
        let take_over = async {
            new.attach("vol").await;
            attached.set(true);
        };
        let finish = async {
            settle().await;
            assert!(!attached.get(), "the old client's write is still running");
            // What comes after the take-over began is not served any more.
            old.send(&write(2, 0, &[2; 512])).await;
            settle().await;
            bench.target.let_through(2);
            assert_eq!(old.reply().await, (1, 0));
            assert!(old.is_closed().await);
        };
        tokio::join!(take_over, finish);
        assert_eq!(new.read(0, 512).await, [1; 512]);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_says_goodbye_gets_the_replies_of_its_running_writes() {
    local(async {
        let bench = Bench::gated();
        let mut client = bench.attach().await;
        let goodbye = request(0, wire::CMD_DISC, 9, 0, 0);
        client
            .send(&[write(1, 0, &[1; 512]), write(2, 512, &[2; 512]), goodbye].concat())
            .await;
        bench.arrival(2).await;
        bench.target.let_through(2);
        assert_eq!(client.reply().await, (1, 0));
        assert_eq!(client.reply().await, (2, 0));
        assert!(client.is_closed().await);
    })
    .await;
}

#[tokio::test]
async fn writes_of_a_client_that_vanished_run_to_their_end() {
    local(async {
        let bench = Bench::gated();
        let mut client = bench.attach().await;
        client.send(&write(1, 0, &[1; 512])).await;
        bench.arrival(1).await;
        drop(client);
        settle().await;
        assert_eq!(bench.server.connections(), 1, "its write is still running");
        bench.target.let_through(1);
        bench.server.stop().await;
        let other = Server::new(Arc::clone(&bench.registry), Settings::default());
        let after = Bench {
            server: other,
            ..bench
        };
        assert_eq!(after.attach().await.read(0, 512).await, [1; 512]);
    })
    .await;
}

#[tokio::test]
async fn removing_an_export_ends_its_connections_after_their_writes() {
    local(async {
        let bench = Bench::gated();
        let mut client = bench.attach().await;
        client.send(&write(1, 0, &[1; 512])).await;
        bench.arrival(1).await;
        let finish = async {
            settle().await;
            bench.target.let_through(1);
            assert_eq!(client.reply().await, (1, 0));
            assert!(client.is_closed().await);
        };
        assert!(tokio::join!(bench.registry.remove("vol"), finish).0);
        let mut late = bench.connect();
        late.greet().await;
        assert_eq!(late.ask(wire::OPT_GO, &named("vol")).await, wire::REP_ERR_UNKNOWN);
    })
    .await;
}

#[tokio::test]
async fn stopping_waits_for_running_writes_and_admits_nobody() {
    local(async {
        let bench = Bench::gated();
        let (mut client, mut negotiating) = (bench.attach().await, bench.connect());
        client.send(&write(1, 0, &[1; 512])).await;
        bench.arrival(1).await;
        let finish = async {
            settle().await;
            assert!(bench.server.admit().is_none());
            assert!(negotiating.receive(18).await.len() == 18 && negotiating.is_closed().await);
            bench.target.let_through(1);
            assert_eq!(client.reply().await, (1, 0));
        };
        tokio::join!(bench.server.stop(), finish);
        assert_eq!(bench.server.connections(), 0);
    })
    .await;
}

#[tokio::test]
async fn no_more_than_128_requests_of_a_connection_run_at_a_time() {
    local(async {
        let bench = Bench::gated();
        let mut client = bench.attach().await;
        let writes: Vec<u8> = (0..200).flat_map(|n| write(n, n * 512, &[1; 512])).collect();
        client.send(&writes).await;
        settle().await;
        assert_eq!(bench.target.arrived(), 128);
        bench.target.let_through(200);
        for _ in 0..200 {
            assert_eq!(client.reply().await.1, 0);
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_reads_late_gets_every_reply() {
    local(async {
        let bench = Bench::plain();
        let mut client = bench.connect_through(64 << 10);
        client.attach("vol").await;
        assert_eq!(client.call(&write(0, 0, &[5; 4096])).await, 0);
        let (reading, mut writing) = tokio::io::split(client.stream);
        let requests: Vec<u8> = (0..2000)
            .flat_map(|n| request(0, wire::CMD_READ, n, 0, 4096))
            .collect();
        let send = async {
            tokio::io::AsyncWriteExt::write_all(&mut writing, &requests)
                .await
                .unwrap();
        };
        let receive = async {
            settle().await;
            let mut receiver = RawClient {
                stream: tokio::io::join(reading, tokio::io::sink()),
            };
            for _ in 0..2000 {
                assert_eq!(receiver.reply().await.1, 0);
                assert_eq!(receiver.receive(4096).await, [5; 4096]);
            }
        };
        tokio::join!(send, receive);
    })
    .await;
}

#[tokio::test]
async fn flush_and_fua_reach_the_target() {
    local(async {
        let bench = Bench::plain();
        let mut client = bench.attach().await;
        let durable = request(wire::CMD_FLAG_FUA, wire::CMD_WRITE_ZEROES, 1, 0, 512);
        assert_eq!(client.call(&durable).await, 0);
        assert_eq!(bench.target.durable_writes(), 1);
        assert_eq!(client.call(&request(0, wire::CMD_FLUSH, 1, 0, 0)).await, 0);
        assert_eq!(bench.target.flushes(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_read_only_export_refuses_to_be_changed() {
    local(async {
        let read_only = Access {
            read_only: true,
            ..Access::default()
        };
        let bench = Bench::new(MemoryTarget::new(CAPACITY), |export| Export {
            access: read_only,
            ..export
        });
        let mut client = bench.attach().await;
        assert_eq!(client.call(&write(1, 0, &[1; 512])).await, wire::EPERM);
        assert_eq!(
            client.call(&request(0, wire::CMD_TRIM, 1, 0, 512)).await,
            wire::EPERM
        );
        assert_eq!(client.read(0, 512).await, [0; 512]);
        assert_eq!(bench.target.arrived(), 0);
    })
    .await;
}

#[tokio::test]
async fn there_are_no_more_connections_than_allowed() {
    local(async {
        let bench = Bench::plain();
        let mut clients = [bench.attach().await, bench.attach().await, bench.attach().await];
        assert!(bench.server.admit().is_none());
        clients[0].send(&request(0, wire::CMD_DISC, 1, 0, 0)).await;
        assert!(clients[0].is_closed().await);
        settle().await;
        assert!(bench.server.admit().is_some());
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_polls_before_sleeping_serves_the_same() {
    local(async {
        let polling = Polling::For(Duration::from_millis(1));
        let bench = Bench::new(MemoryTarget::new(CAPACITY), |export| Export { polling, ..export });
        let mut client = bench.attach().await;
        for n in 0..20u8 {
            assert_eq!(client.call(&write(1, 0, &[n; 512])).await, 0);
            assert_eq!(client.read(0, 512).await, [n; 512]);
        }
    })
    .await;
}

struct Here;

impl ConnectionSpawner for Here {
    fn spawn(&self, task: ConnectionTask) {
        tokio::task::spawn_local(task());
    }
}

#[tokio::test]
async fn a_unix_socket_left_by_a_dead_server_is_replaced_and_one_in_use_is_not() {
    local(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nbd.sock");
        drop(bind_unix(&path).unwrap());
        let bench = Bench::plain();
        let listener = bind_unix(&path).unwrap();
        let listening = tokio::task::spawn_local(Arc::clone(&bench.server).listen_unix(listener, &Here));
        assert!(bind_unix(&path).is_err());
        let mut client = RawClient {
            stream: tokio::net::UnixStream::connect(&path).await.unwrap(),
        };
        client.attach("vol").await;
        assert_eq!(client.read(0, 512).await, [0; 512]);
        bench.server.stop().await;
        listening.await.unwrap();
        assert!(client.is_closed().await);
        std::fs::write(folder.path().join("file"), "kept").unwrap();
        assert!(bind_unix(&folder.path().join("file")).is_err());
    })
    .await;
}

#[tokio::test]
async fn clients_come_over_tcp() {
    local(async {
        let bench = Bench::plain();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::task::spawn_local(Arc::clone(&bench.server).listen_tcp(listener, &Here));
        let mut client = RawClient {
            stream: tokio::net::TcpStream::connect(address).await.unwrap(),
        };
        client.attach("vol").await;
        assert_eq!(client.call(&write(1, 0, &[3; 512])).await, 0);
        assert_eq!(client.read(0, 512).await, [3; 512]);
    })
    .await;
}

#[tokio::test]
async fn an_address_that_is_not_listed_is_refused() {
    local(async {
        let access = Access {
            clients: vec!["192.0.2.0/24".parse().unwrap()],
            ..Access::default()
        };
        let bench = Bench::new(MemoryTarget::new(CAPACITY), |export| Export { access, ..export });
        for (address, kind) in [
            ("192.0.2.9", wire::REP_ACK),
            ("203.0.113.9", wire::REP_ERR_POLICY),
        ] {
            let (stream, far) = tokio::io::duplex(CAPACITY);
            let admission = bench.server.admit().unwrap();
            tokio::task::spawn_local(admission.serve(far, Some(address.parse().unwrap())));
            let mut client = RawClient { stream };
            client.greet().await;
            assert_eq!(client.ask(wire::OPT_GO, &named("vol")).await, kind);
        }
    })
    .await;
}
