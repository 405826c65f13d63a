//! An appliance that answers as it is told, and remembers what it was asked.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// Path with query.
    pub(crate) path: String,
    /// Names in small letters.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Status, headers and body.
pub(crate) type Reply = (u16, &'static str, String);

pub(crate) struct Appliance {
    pub(crate) url: String,
    log: Arc<Mutex<Vec<Seen>>>,
}

impl Appliance {
    /// Answers each request as `reply` says; the number counts those before it.
    pub(crate) fn answering(reply: impl Fn(usize, &Seen) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&log);
        thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), &kept, &reply);
            }
        });
        Self { url, log }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.log.lock().unwrap().clone()
    }

    /// Runs the program for this appliance, with a home of its own.
    pub(crate) fn run(&self, home: &Path, line: &str) -> Output {
        program(home)
            .args(["--url", &self.url])
            .args(line.split(' '))
            .output()
            .unwrap()
    }
}

/// The program, with nothing in its environment but a home.
pub(crate) fn program(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ashlar"));
    command.env_clear().env("HOME", home).current_dir(home);
    command
}

fn serve(stream: TcpStream, log: &Mutex<Vec<Seen>>, reply: &impl Fn(usize, &Seen) -> Reply) {
    let mut stream = BufReader::new(stream);
    let Some(seen) = request(&mut stream) else {
        return;
    };
    let number = log.lock().unwrap().len();
    let (status, headers, body) = reply(number, &seen);
    log.lock().unwrap().push(seen);
    let length = if status == 204 {
        String::new()
    } else {
        format!("content-length: {}\r\n", body.len())
    };
    // Whoever has gone away does not want it.
    let _ = write!(
        stream.get_mut(),
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\n{length}{headers}\r\n{body}"
    );
}

fn request(stream: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            text => lines.push(text.to_owned()),
        }
    }
    let mut first = lines
        .remove(0)
        .split(' ')
        .map(str::to_owned)
        .collect::<Vec<_>>()
        .into_iter();
    let headers = lines.iter().filter_map(|line| line.split_once(": "));
    let headers = headers
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let (method, path) = (first.next()?, first.next()?);
    let mut seen = Seen {
        method,
        path,
        headers,
        body: String::new(),
    };
    let length = seen
        .header("content-length")
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    seen.body = String::from_utf8(body).unwrap();
    Some(seen)
}
