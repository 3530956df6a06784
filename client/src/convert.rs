//! From the engine's words to the protocol's, and back.

use millstream_model::{
    fault::{Failure, Remedy},
    id::OperatorId,
    state::JobStatus,
};

use crate::proto::v1;

/// An answer that this version does not understand.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the JobManager's answer cannot be understood: {0}; is it of another version?")]
pub struct Misunderstood(pub String);

impl From<JobStatus> for v1::JobStatus {
    fn from(status: JobStatus) -> v1::JobStatus {
        match status {
            JobStatus::Initializing => v1::JobStatus::Initializing,
            JobStatus::Created => v1::JobStatus::Created,
            JobStatus::Running => v1::JobStatus::Running,
            JobStatus::Restarting => v1::JobStatus::Restarting,
            JobStatus::Failing => v1::JobStatus::Failing,
            JobStatus::Failed => v1::JobStatus::Failed,
            JobStatus::Cancelling => v1::JobStatus::Cancelling,
            JobStatus::Canceled => v1::JobStatus::Canceled,
            JobStatus::Finished => v1::JobStatus::Finished,
        }
    }
}

impl TryFrom<v1::JobStatus> for JobStatus {
    type Error = Misunderstood;

    fn try_from(status: v1::JobStatus) -> Result<JobStatus, Misunderstood> {
        Ok(match status {
            v1::JobStatus::Unspecified => return Err(Misunderstood("a job without a status".to_owned())),
            v1::JobStatus::Initializing => JobStatus::Initializing,
            v1::JobStatus::Created => JobStatus::Created,
            v1::JobStatus::Running => JobStatus::Running,
            v1::JobStatus::Restarting => JobStatus::Restarting,
            v1::JobStatus::Failing => JobStatus::Failing,
            v1::JobStatus::Failed => JobStatus::Failed,
            v1::JobStatus::Cancelling => JobStatus::Cancelling,
            v1::JobStatus::Canceled => JobStatus::Canceled,
            v1::JobStatus::Finished => JobStatus::Finished,
        })
    }
}

impl From<Failure> for v1::Failure {
    fn from(failure: Failure) -> v1::Failure {
        let Failure { message, operator, position, backtrace, remedy: _ } = failure;
        v1::Failure { message, operator, position, backtrace }
    }
}

/// What a client is told of a failure is final: it is not for the client to decide on a remedy.
impl From<v1::Failure> for Failure {
    fn from(failure: v1::Failure) -> Failure {
        let v1::Failure { message, operator, position, backtrace } = failure;
        Failure { message, operator, position, backtrace, remedy: Remedy::FailJob }
    }
}

impl v1::Collected {
    pub fn of((operator, records): (OperatorId, Vec<u8>)) -> v1::Collected {
        v1::Collected { operator_id: operator.to_string(), records }
    }

    /// # Errors
    /// If the operator's id is none.
    pub fn into_parts(self) -> Result<(OperatorId, Vec<u8>), Misunderstood> {
        let operator =
            self.operator_id.parse().map_err(|_| Misunderstood(format!("operator '{}'", self.operator_id)))?;
        Ok((operator, self.records))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_survives_the_way_there_and_back() {
        for number in 1..=9 {
            let status = v1::JobStatus::try_from(number).unwrap();
            let ours = JobStatus::try_from(status).unwrap();
            assert_eq!(v1::JobStatus::from(ours), status);
            // The protocol's names are Flink's.
            let flinks = serde_json::to_string(&ours).unwrap();
            assert_eq!(format!("\"{}\"", status.as_str_name().trim_start_matches("JOB_STATUS_")), flinks);
        }
        assert!(JobStatus::try_from(v1::JobStatus::Unspecified).is_err());
    }
}
