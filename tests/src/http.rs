//! Requests over HTTP/1.1, one connection each, as plainly as a test needs them to be.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::Value;

/// No answer of a test takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server, as `host:port`.
#[derive(Clone, Debug)]
pub struct Http(pub String);

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// The head, without its first line.
    pub headers: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// `None` if it is none of HTTP.
    pub(crate) fn parse(text: &[u8]) -> Option<Answer> {
        let at = text.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&text[..at]).into_owned();
        let (first, headers) = head.split_once("\r\n").unwrap_or((&head, ""));
        let status = first.split(' ').nth(1)?.parse().ok()?;
        Some(Answer { status, headers: headers.to_owned(), body: text[at + 4..].to_vec() })
    }

    /// The body, as JSON.
    ///
    /// # Panics
    /// If it is none.
    pub fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}: no JSON: {text}", self.status))
    }

    /// The one error in it.
    ///
    /// # Panics
    /// If it is no error in Flink's form.
    pub fn error(&self) -> String {
        let body = self.json();
        let errors = body["errors"].as_array().unwrap_or_else(|| panic!("{}: {body}", self.status));
        assert!(errors.len() == 1 && body.as_object().is_some_and(|all| all.len() == 1), "{body}");
        errors[0].as_str().unwrap_or_else(|| panic!("{body}")).to_owned()
    }
}

impl Http {
    /// # Panics
    /// If nobody answers.
    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    /// Sends a request with more headers than each needs.
    ///
    /// # Panics
    /// If nobody answers.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.0);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let answer = self.raw(&[head.as_bytes(), body].concat());
        answer.unwrap_or_else(|| panic!("{method} {path}: no answer"))
    }

    /// Sends JSON.
    ///
    /// # Panics
    /// If nobody answers.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[("Content-Type", "application/json")], body.to_string().as_bytes())
    }

    /// Sends a file as the one part of a form, as `curl -F jarfile=@FILE` does.
    ///
    /// # Panics
    /// If nobody answers.
    pub fn upload(&self, path: &str, file_name: &str, content: &[u8]) -> Answer {
        let boundary = "----------------------------d41d8cd98f00b204";
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"jarfile\"; filename=\"{file_name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        let body = [head.as_bytes(), content, format!("\r\n--{boundary}--\r\n").as_bytes()].concat();
        self.send("POST", path, &[("Content-Type", &format!("multipart/form-data; boundary={boundary}"))], &body)
    }

    /// Sends bytes, and returns what is answered, if anything is that looks like an answer.
    ///
    /// # Panics
    /// If there is no connection to be had.
    pub fn raw(&self, bytes: &[u8]) -> Option<Answer> {
        let mut stream = TcpStream::connect(&self.0).unwrap_or_else(|cause| panic!("{}: {cause}", self.0));
        stream.set_read_timeout(Some(PATIENCE)).expect("it is no time of zero");
        stream.set_write_timeout(Some(PATIENCE)).expect("it is no time of zero");
        // A server that has seen enough answers and takes no more.
        let _ = stream.write_all(bytes);
        let mut text = Vec::new();
        // What came before the connection was reset counts.
        let _ = stream.read_to_end(&mut text);
        Answer::parse(&text)
    }

    /// Sends bytes and nothing more, and looks whether anything is answered for a moment.
    ///
    /// # Panics
    /// If there is no connection to be had.
    pub fn send_and_leave(&self, bytes: &[u8]) {
        let mut stream = TcpStream::connect(&self.0).unwrap_or_else(|cause| panic!("{}: {cause}", self.0));
        stream.set_read_timeout(Some(PATIENCE)).expect("it is no time of zero");
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
}
