//! Shows how a job goes: a line that is written over, where a person looks at it; in a file, a line when its status changes.

use std::{
    io::{IsTerminal, Write, stderr},
    time::Instant,
};

use millstream::{
    job::FinishedJob,
    model::{id::JobId, state::JobStatus},
};
use millstream_client::proto::v1;

use crate::{Form, plain::thousands};

/// What was shown last.
pub(super) struct Progress {
    form: Form,
    is_terminal: bool,
    last: Option<(Instant, u64)>,
    status: v1::JobStatus,
    failure: Option<String>,
}

impl Progress {
    pub(super) fn new(form: Form) -> Progress {
        let is_terminal = stderr().is_terminal();
        Progress { form, is_terminal, last: None, status: v1::JobStatus::Unspecified, failure: None }
    }

    pub(super) fn show(&mut self, job: &v1::Job) {
        let now = now();
        let rate = self.last.map(|(since, before)| {
            let seconds = now.duration_since(since).as_secs_f64();
            job.records_read.saturating_sub(before) as f64 / seconds.max(1e-3)
        });
        self.last = Some((now, job.records_read));
        let status = job.status().as_str_name().trim_start_matches("JOB_STATUS_");
        let mut line = format!("{status}, {} of {} tasks running", job.running_tasks, job.tasks);
        if let Some(rate) = rate {
            line = format!("{line}, {} records read, {}/s", thousands(job.records_read), thousands(rate as u64));
        }
        if job.completed_checkpoints > 0 {
            line = format!("{line}, {} checkpoints", thousands(job.completed_checkpoints));
        }
        let failure = job.last_failure.as_ref().map(|failure| failure.message.clone());
        if failure.is_some() && failure != self.failure {
            self.clear();
            eprintln!("The job has a problem: {}", failure.as_deref().unwrap_or_default());
            self.failure = failure;
        }
        if self.is_terminal {
            eprint!("\r\x1b[K{line}");
            let _ = stderr().flush();
        } else if job.status() != self.status {
            eprintln!("{line}");
        }
        self.status = job.status();
    }

    fn clear(&self) {
        if self.is_terminal {
            eprint!("\r\x1b[K");
        }
    }

    pub(super) fn end(&self, job: JobId, finished: &FinishedJob) {
        self.clear();
        let millis = finished.runtime.as_millis();
        if self.form == Form::Json {
            let failure = finished.failure.as_ref().map(ToString::to_string);
            let result = serde_json::json!({
                "job": job.to_string(), "status": finished.status, "runtime_ms": millis, "failure": failure,
                "restarts": finished.restarts, "checkpoints": finished.checkpoints,
                "accumulators": finished.accumulators,
            });
            println!("{result}");
            return;
        }
        match finished.status {
            JobStatus::Finished => {
                // Accumulators are the program's to show.
                println!("Job with JobID {job} has finished.\nJob Runtime: {millis} ms");
            }
            JobStatus::Canceled => println!("Job with JobID {job} was cancelled after {millis} ms."),
            _ => println!("Job with JobID {job} has failed after {millis} ms."),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "rates are shown to a person")]
fn now() -> Instant {
    Instant::now()
}
