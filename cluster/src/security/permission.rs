//! Which role may call which method: one table.

/// What a caller is to a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// Submits jobs and looks after them.
    Client,
    /// Offers slots.
    TaskManager,
}

/// Who may call a method.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Permission {
    Everybody,
    Only(Role),
}

use self::{
    Permission::{Everybody, Only},
    Role::{Client, TaskManager},
};

/// Methods of gRPC by their path. What is in no line may be called by nobody.
const METHODS: &[(&str, Permission)] = &[
    // Whether there is a JobManager is no secret: whoever reaches the port knows.
    ("/grpc.health.v1.Health/Check", Everybody),
    ("/grpc.health.v1.Health/Watch", Everybody),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Only(Client)),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Only(Client)),
    ("/millstream.v1.JobSubmission/CancelJob", Only(Client)),
    ("/millstream.v1.JobSubmission/ExplainJob", Only(Client)),
    ("/millstream.v1.JobSubmission/GetCluster", Only(Client)),
    ("/millstream.v1.JobSubmission/GetJob", Only(Client)),
    ("/millstream.v1.JobSubmission/HasArtifact", Only(Client)),
    ("/millstream.v1.JobSubmission/ListJobs", Only(Client)),
    ("/millstream.v1.JobSubmission/SubmitJob", Only(Client)),
    ("/millstream.v1.JobSubmission/TriggerCheckpoint", Only(Client)),
    ("/millstream.v1.JobSubmission/UploadArtifact", Only(Client)),
    ("/millstream.v1.JobSubmission/WatchJob", Only(Client)),
    ("/millstream.v1.Logs/GetLogLevels", Only(Client)),
    ("/millstream.v1.Logs/ReadLogs", Only(Client)),
    ("/millstream.v1.Logs/SetLogLevels", Only(Client)),
    ("/millstream.v1.TaskManagers/Attach", Only(TaskManager)),
    ("/millstream.v1.TaskManagers/DownloadArtifact", Only(TaskManager)),
    // It shows the join token, and looks at it itself.
    ("/millstream.v1.TaskManagers/Join", Everybody),
];

/// Who may ask for a path. Those of no gRPC service are REST's, and clients'; `None` is nobody.
pub(super) fn permission(path: &str, is_grpc: bool) -> Option<Permission> {
    match METHODS.iter().find(|(method, _)| *method == path) {
        Some((_, permission)) => Some(*permission),
        None if is_grpc => None,
        None => Some(Only(Client)),
    }
}

#[cfg(test)]
mod tests {
    use millstream_client::proto::FILE_DESCRIPTOR_SET;
    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn each_method_of_each_service_is_in_the_table_and_nothing_else() {
        let described = [
            FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let mut methods = Vec::new();
        for bytes in described {
            for file in FileDescriptorSet::decode(bytes).unwrap().file {
                for service in &file.service {
                    let path = |method: &str| format!("/{}.{}/{method}", file.package(), service.name());
                    methods.extend(service.method.iter().map(|method| path(method.name())));
                }
            }
        }
        methods.sort();
        methods.dedup();
        let mut listed: Vec<&str> = METHODS.iter().map(|(method, _)| *method).collect();
        listed.sort_unstable();
        assert_eq!(methods, listed);
    }

    #[test]
    fn what_is_not_listed_is_for_clients_if_it_is_rest_and_else_for_nobody() {
        assert_eq!(permission("/jobs/overview", false), Some(Only(Client)));
        assert_eq!(permission("/millstream.v1.JobSubmission/Other", true), None);
        // Whatever a request says that it is, a method is what its path says.
        assert_eq!(permission("/millstream.v1.TaskManagers/Attach", false), Some(Only(TaskManager)));
    }
}
