//! A server of chat completions that acts by a script.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;

pub const KEY: &str = "sk-precious";

/// What the server does with a request.
#[derive(Clone)]
pub enum Act {
    Say(u16, String, &'static str),
    /// Promises more bytes than it sends.
    Half,
    /// Hangs up.
    Nothing,
    Sleep(Duration),
}

pub fn good(text: &str) -> Act {
    let usage = json!({"prompt_tokens": 10, "completion_tokens": 1});
    Act::Say(200, json!({"choices": [{"message": {"content": text}}], "usage": usage}).to_string(), "")
}

pub fn status(code: u16, header: &'static str) -> Act {
    Act::Say(code, json!({"error": {"message": format!("no, {KEY}")}}).to_string(), header)
}

/// An answer by these letters' probabilities.
pub fn letters(probabilities: &[(char, f64)]) -> Act {
    let top: Vec<_> = probabilities.iter().map(|(letter, p)| json!({"token": letter, "logprob": p.ln()})).collect();
    let content = json!([{"token": top[0]["token"], "logprob": top[0]["logprob"], "top_logprobs": top}]);
    let choice = json!({"message": {"content": probabilities[0].0}, "logprobs": {"content": content}});
    Act::Say(200, json!({"choices": [choice]}).to_string(), "")
}

/// A server that acts by a script, and then by a function of the request.
pub struct Server {
    pub url: String,
    pub requests: Arc<Mutex<Vec<String>>>,
    pub most_at_once: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// One that says `A` when its script is over.
    pub fn new(script: impl IntoIterator<Item = Act>) -> Server {
        Server::acting(script, |_| good("A"))
    }

    pub fn acting(
        script: impl IntoIterator<Item = Act>,
        otherwise: impl Fn(&str) -> Act + Send + Sync + 'static,
    ) -> Server {
        let otherwise = Arc::new(otherwise);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let script: Arc<Mutex<VecDeque<Act>>> = Arc::new(Mutex::new(script.into_iter().collect()));
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let (at_once, most_at_once) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        let shared = (requests.clone(), most_at_once.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let (requests, most_at_once, stop) = shared;
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (script, requests, at_once, most) =
                    (script.clone(), requests.clone(), at_once.clone(), most_at_once.clone());
                let otherwise = otherwise.clone();
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let Some(request) = read(&stream) else { return };
                    requests.lock().unwrap().push(request.clone());
                    most.fetch_max(1 + at_once.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
                    let next = script.lock().unwrap().pop_front();
                    let act = next.unwrap_or_else(|| otherwise(&request));
                    // Before the answer is out: who has it may ask the next question at once.
                    at_once.fetch_sub(1, Ordering::SeqCst);
                    at(&mut stream, act);
                });
            }
        });
        Server { url, requests, most_at_once, stop, thread: Some(thread) }
    }

    pub fn calls(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let address = self.url.trim_start_matches("http://").trim_end_matches("/v1");
        let _ = TcpStream::connect(address);
        let _ = self.thread.take().unwrap().join();
    }
}

fn read(stream: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some((name, value)) = line.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case("content-length")) {
            assert!(!name.is_empty());
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
        head += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(head + &String::from_utf8(body).unwrap())
}

fn at(stream: &mut TcpStream, act: Act) {
    match act {
        Act::Say(status, body, header) => {
            let length = body.len();
            let head = format!("HTTP/1.1 {status} X\r\n{header}Content-Length: {length}\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all((head + &body).as_bytes());
        }
        Act::Half => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"choices\":[{\"mess");
        }
        Act::Nothing => {}
        Act::Sleep(time) => std::thread::sleep(time),
    }
}
