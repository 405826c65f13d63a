//! Files and block devices, each way: in memory, through the page cache, direct.

use std::process::Command;

use tempfile::TempDir;

use super::*;
use crate::device::{Io, block, file, start};
use crate::io::BufSlice;
use crate::types::ByteRange;

const MIB: u64 = 1 << 20;

fn on_data_thread<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

/// One device of `size` bytes, its path, and what must be dropped after it.
struct Case {
    device: LocalDevice,
    path: PathBuf,
    _folder: TempDir,
}

fn options(cache: CachePolicy) -> OpenOptions {
    OpenOptions {
        cache: Some(cache),
        ..OpenOptions::default()
    }
}

fn case(folder: &str, cache: CachePolicy, size: u64) -> Case {
    let folder = tempfile::tempdir_in(folder).unwrap();
    let path = folder.path().join("device");
    let device = file::create(&path, size, &options(cache)).unwrap();
    Case {
        device,
        path,
        _folder: folder,
    }
}

fn each_way(size: u64) -> [Case; 3] {
    let cases = [
        case("/dev/shm", CachePolicy::Direct, size),
        case("/var/tmp", CachePolicy::Buffered, size),
        case("/var/tmp", CachePolicy::Direct, size),
    ];
    assert_eq!(
        cases.each_ref().map(|case| case.device.way),
        [Way::Memory, Way::PageCache, Way::Direct]
    );
    cases
}

fn pattern(len: usize, seed: u64) -> IoBuf {
    let mut buf = IoBuf::new(len);
    for (place, number) in buf.as_mut_slice().chunks_exact_mut(8).zip(seed << 32..) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    buf
}

fn write(device: &dyn Device, at: u64, data: BufSlice, fua: bool) -> Io {
    start(device, Request::Write { at, data, fua })
}

async fn read(device: &dyn Device, at: u64, len: usize) -> Result<IoBuf, DeviceError> {
    let mut garbage = IoBuf::new(len);
    garbage.as_mut_slice().fill(0x5a);
    let answer = start(device, Request::Read { at, buf: garbage }).await;
    answer
        .result
        .map(|()| answer.buf.expect("a read returns its buffer"))
}

async fn write_read_and_zero(device: &dyn Device) {
    let block = u64::from(device.info().block);
    let len = usize::try_from(MIB + block).unwrap();
    let data = pattern(len, 1).into_slice();
    assert_eq!(write(device, block, data.clone(), false).await.result, Ok(()));
    assert_eq!(write(device, 0, data.cut(0, 4096), true).await.result, Ok(()));
    assert_eq!(start(device, Request::Flush).await.result, Ok(()));
    let mut expected = vec![0; len + 4096];
    expected[usize::try_from(block).unwrap()..][..len].copy_from_slice(data.as_slice());
    expected[..4096].copy_from_slice(&data.as_slice()[..4096]);
    assert_eq!(
        read(device, 0, expected.len()).await.unwrap().as_slice(),
        expected
    );
    for (unmap, start_block) in [(false, 3), (true, 64)] {
        let range = ByteRange::new(start_block * block, 17 * block).unwrap();
        assert_eq!(start(device, Request::Zero { range, unmap }).await.result, Ok(()));
        let (from, to) = (
            usize::try_from(range.start()).unwrap(),
            usize::try_from(range.end()).unwrap(),
        );
        expected[from..to].fill(0);
    }
    assert_eq!(
        read(device, 0, expected.len()).await.unwrap().as_slice(),
        expected
    );
}

#[test]
fn what_was_written_or_zeroed_is_read_back_and_nothing_else_changes() {
    for case in each_way(4 * MIB) {
        assert_eq!(case.device.info().capacity, 4 * MIB);
        on_data_thread(write_read_and_zero(&case.device));
        // Now that its pages are cached.
        on_data_thread(write_read_and_zero(&case.device));
    }
}

#[test]
fn a_request_that_does_not_fit_is_refused_and_gives_its_buffer_back() {
    for case in each_way(MIB) {
        let device = &case.device;
        on_data_thread(async {
            for (at, len) in [
                (1, 4096),
                (0, 100),
                (MIB, 4096),
                (MIB - 4096, 8192),
                (u64::MAX - 511, 4096),
            ] {
                let answer = start(
                    device,
                    Request::Read {
                        at,
                        buf: IoBuf::new(len),
                    },
                )
                .await;
                assert_eq!(answer.result, Err(DeviceError::Os(22)), "{at}+{len}");
                assert_eq!(answer.buf.unwrap().len(), len);
                let answer = write(device, at, IoBuf::new(len).into_slice(), false).await;
                assert_eq!(answer.result, Err(DeviceError::Os(22)), "{at}+{len}");
            }
            for (at, len) in [(1, 4096), (0, 100), (MIB, 4096)] {
                let range = ByteRange::new(at, len).unwrap();
                let answer = start(device, Request::Zero { range, unmap: true }).await;
                assert_eq!(answer.result, Err(DeviceError::Os(22)), "{range}");
            }
            let shifted = IoBuf::zeroed(8192).into_slice().cut(8, 4096);
            let answer = write(device, 0, shifted, false).await.result;
            assert_eq!(answer.is_err(), device.way == Way::Direct);
        });
    }
}

#[test]
fn a_request_for_nothing_succeeds() {
    for case in each_way(MIB) {
        on_data_thread(async {
            let range = ByteRange::new(MIB, 0).unwrap();
            assert_eq!(
                start(&case.device, Request::Zero { range, unmap: false })
                    .await
                    .result,
                Ok(())
            );
            assert_eq!(read(&case.device, 0, 0).await.unwrap().len(), 0);
        });
    }
}

#[test]
fn a_file_that_was_cut_off_answers_short() {
    for case in each_way(MIB) {
        on_data_thread(async {
            write(&case.device, 0, pattern(65536, 1).into_slice(), false)
                .await
                .result
                .unwrap();
            start(&case.device, Request::Flush).await.result.unwrap();
            std::fs::OpenOptions::new()
                .write(true)
                .open(&case.path)
                .unwrap()
                .set_len(4096 + 100)
                .unwrap();
            assert!(read(&case.device, 0, 4096).await.is_ok());
            for (at, len) in [(0, 8192), (4096, 4096), (65536, 4096)] {
                assert_eq!(
                    read(&case.device, at, len).await.map(|buf| buf.len()),
                    Err(DeviceError::Short)
                );
            }
        });
    }
}

#[test]
fn unmapping_gives_space_back_and_zeroing_keeps_it() {
    use std::os::unix::fs::MetadataExt as _;
    for case in each_way(4 * MIB) {
        let sectors = || std::fs::metadata(&case.path).unwrap().blocks();
        on_data_thread(async {
            let whole = ByteRange::new(0, 4 * MIB).unwrap();
            write(&case.device, 0, pattern(4 << 20, 1).into_slice(), false)
                .await
                .result
                .unwrap();
            start(&case.device, Request::Flush).await.result.unwrap();
            let full = sectors();
            start(
                &case.device,
                Request::Zero {
                    range: whole,
                    unmap: false,
                },
            )
            .await
            .result
            .unwrap();
            start(&case.device, Request::Flush).await.result.unwrap();
            assert!(sectors() >= full.min(4 * MIB / 512));
            start(
                &case.device,
                Request::Zero {
                    range: whole,
                    unmap: true,
                },
            )
            .await
            .result
            .unwrap();
            assert_eq!(sectors(), 0);
        });
    }
}

#[test]
fn ten_thousand_operations_in_flight_all_end_right() {
    const COUNT: u64 = 10_000;
    for case in each_way(COUNT * 4096) {
        on_data_thread(async {
            let writes: Vec<Io> = (0..COUNT)
                .map(|number| {
                    write(
                        &case.device,
                        number * 4096,
                        pattern(4096, number).into_slice(),
                        false,
                    )
                })
                .collect();
            for io in writes {
                assert_eq!(io.await.result, Ok(()));
            }
            let reads: Vec<Io> = (0..COUNT)
                .map(|number| {
                    start(
                        &case.device,
                        Request::Read {
                            at: number * 4096,
                            buf: IoBuf::new(4096),
                        },
                    )
                })
                .collect();
            for (io, number) in reads.into_iter().zip(0..) {
                assert_eq!(io.await.buf.unwrap().as_slice(), pattern(4096, number).as_slice());
            }
        });
    }
}

#[test]
fn an_open_file_is_refused_as_in_use_until_it_is_closed() {
    for case in each_way(MIB) {
        let again = || file::adopt(&case.path, &OpenOptions::default());
        assert!(matches!(again(), Err(OpenError::InUse(_))));
        drop(case.device);
        assert_eq!(again().unwrap().info().capacity, MIB);
    }
}

#[test]
fn creating_refuses_what_exists_and_leaves_nothing_behind_when_it_fails() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device");
    let options = OpenOptions::default();
    for size in [0, 100, 4096 + 100] {
        assert!(
            matches!(file::create(&path, size, &options), Err(OpenError::Size { .. })),
            "{size}"
        );
    }
    assert!(matches!(
        file::create(&path, u64::MAX - 511, &options),
        Err(OpenError::Os { .. })
    ));
    assert!(!path.exists());
    std::fs::write(&path, b"mine").unwrap();
    assert!(matches!(
        file::create(&path, MIB, &options),
        Err(OpenError::Exists(_))
    ));
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

#[test]
fn adopting_takes_regular_files_only_and_their_whole_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let options = OpenOptions::default();
    let refused = |path: &Path| file::adopt(path, &options).err().unwrap();
    assert!(matches!(
        refused(&folder.path().join("none")),
        OpenError::Os {
            errno: Errno::NOENT,
            ..
        }
    ));
    assert!(matches!(refused(folder.path()), OpenError::WrongKind { .. }));
    assert!(matches!(
        refused(Path::new("/dev/null")),
        OpenError::WrongKind { .. }
    ));
    assert!(matches!(
        block::open(Path::new("/dev/null"), &options).err().unwrap(),
        OpenError::WrongKind { .. }
    ));
    let path = folder.path().join("odd");
    std::fs::write(&path, vec![1; 100]).unwrap();
    assert!(matches!(refused(&path), OpenError::Size { .. }));
    std::fs::write(&path, vec![1; 5000]).unwrap();
    let block = u64::from(file::adopt(&path, &options).unwrap().info().block);
    assert_eq!(
        file::adopt(&path, &options).unwrap().info().capacity,
        5000 - 5000 % block
    );
}

fn run(command: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(command).args(arguments).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A small mounted file system, or nothing where this user may not mount.
struct Mount(TempDir);

impl Mount {
    fn memory() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        run(
            "mount",
            &["-t", "tmpfs", "-o", "size=1M", "tmpfs", folder.path().to_str()?],
        )?;
        Some(Self(folder))
    }

    fn disk() -> Option<Self> {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let image = folder.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(8 * MIB).unwrap();
        run("mkfs.ext4", &["-q", image.to_str()?])?;
        run("mount", &["-o", "loop", image.to_str()?, folder.path().to_str()?])?;
        Some(Self(folder))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run("umount", &[self.0.path().to_str().unwrap()]);
    }
}

#[test]
fn a_full_file_system_answers_no_space_until_some_is_given_back() {
    for (mount, cache) in [
        (Mount::memory as fn() -> Option<Mount>, CachePolicy::Buffered),
        (Mount::disk, CachePolicy::Buffered),
        (Mount::disk, CachePolicy::Direct),
    ] {
        let Some(mount) = mount() else {
            eprintln!("skipped: this user may not mount");
            return;
        };
        let device = file::create(&mount.0.path().join("device"), 64 * MIB, &options(cache)).unwrap();
        on_data_thread(async {
            let write = |at| write(&device, at, pattern(16 << 20, 1).into_slice(), false);
            assert_eq!(write(0).await.result, Err(DeviceError::NoSpace));
            let zero = |len, unmap| {
                let range = ByteRange::new(0, len).unwrap();
                start(&device, Request::Zero { range, unmap })
            };
            assert_eq!(zero(64 * MIB, false).await.result, Err(DeviceError::NoSpace));
            assert_eq!(zero(64 * MIB, true).await.result, Ok(()));
            assert_eq!(zero(MIB / 2, false).await.result, Ok(()));
        });
    }
}

/// A loop device over a file, or nothing where this user may not make one.
struct Loop {
    path: PathBuf,
    _folder: TempDir,
}

impl Loop {
    fn attach(size: u64, sector: u32) -> Option<Self> {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let file = folder.path().join("disk");
        std::fs::File::create(&file).unwrap().set_len(size).unwrap();
        let sector = sector.to_string();
        let arguments = ["--find", "--show", "--sector-size", &sector, file.to_str()?];
        let path = PathBuf::from(run("losetup", &arguments)?);
        Some(Self {
            path,
            _folder: folder,
        })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["--detach", self.path.to_str().unwrap()]);
    }
}

#[test]
fn a_block_device_is_read_written_zeroed_and_flushed() {
    for (sector, cache) in [(512, None), (4096, None), (512, Some(CachePolicy::Buffered))] {
        let Some(disk) = Loop::attach(4 * MIB, sector) else {
            eprintln!("skipped: this user may not make loop devices");
            return;
        };
        let options = OpenOptions {
            cache,
            ..OpenOptions::default()
        };
        let device = block::open(&disk.path, &options).unwrap();
        let info = device.info();
        assert_eq!(
            (info.capacity, info.block, info.volatile_cache),
            (4 * MIB, sector, true)
        );
        on_data_thread(write_read_and_zero(&device));
    }
}

#[test]
fn a_block_device_that_is_open_or_mounted_is_refused_as_in_use() {
    let Some(disk) = Loop::attach(64 * MIB, 512) else {
        eprintln!("skipped: this user may not make loop devices");
        return;
    };
    let open = || block::open(&disk.path, &OpenOptions::default());
    assert!(matches!(
        file::adopt(&disk.path, &OpenOptions::default()),
        Err(OpenError::WrongKind { .. })
    ));
    let first = open().unwrap();
    assert!(matches!(open(), Err(OpenError::InUse(_))));
    drop(first);
    drop(open().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mounted = run("mkfs.ext4", &["-q", disk.path.to_str().unwrap()]).and_then(|_| {
        run(
            "mount",
            &[disk.path.to_str().unwrap(), folder.path().to_str().unwrap()],
        )
    });
    if mounted.is_none() {
        eprintln!("skipped: this user may not mount");
        return;
    }
    let refused = open();
    run("umount", &[folder.path().to_str().unwrap()]);
    assert!(matches!(refused, Err(OpenError::InUse(_))));
}
