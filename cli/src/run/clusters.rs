//! Where the jobs of a program run: all on one cluster that is there, or each on one that is started for it.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use millstream::model::{fault::Failure, job_graph::JobGraph};
use millstream_client::{Access, Client, ClientError, convert::Misunderstood};
use millstream_cluster::job_line::{ClusterRequest, JobCluster};

use crate::job_cluster;

/// Where jobs run.
pub(super) enum Clusters {
    /// On this one.
    Session(Box<Client>),
    /// Each on one of its own.
    PerJob(PerJob),
}

/// What clusters get that are each for one job.
pub(super) struct PerJob {
    pub(super) access: Access,
    /// Configuration of the cluster: `key=value`.
    pub(super) settings: Vec<OsString>,
    pub(super) log_folder: PathBuf,
    pub(super) ends_with_client: bool,
}

/// Where a job has got to.
pub(super) struct Place {
    pub(super) client: Client,
    /// What keeps a cluster that is its own until its result was fetched.
    pub(super) cluster: Option<JobCluster>,
}

impl Clusters {
    /// Has a job run whose executable is at this absolute path.
    pub(super) async fn submit(&self, graph: &JobGraph, artifact: &Path) -> Result<Place, Failure> {
        match self {
            Clusters::Session(client) => send(Client::clone(client), graph, artifact).await.map_err(failure),
            Clusters::PerJob(per_job) => per_job.start(graph, artifact).await,
        }
    }
}

async fn send(mut client: Client, graph: &JobGraph, artifact: &Path) -> Result<Place, ClientError> {
    // What runs is what the program says that it is: the JobManager checks what is sent.
    let own = graph.artifact.as_ref().ok_or_else(|| Misunderstood("a job graph without an artifact".to_owned()))?;
    client.upload(artifact, &own.sha256).await?;
    client.submit(graph).await?;
    Ok(Place { client, cluster: None })
}

impl PerJob {
    async fn start(&self, graph: &JobGraph, artifact: &Path) -> Result<Place, Failure> {
        let logs = self.log_folder.join(format!("millstream-job-{}", graph.job_id));
        std::fs::create_dir_all(&logs)
            .map_err(|cause| Failure::fatal(format!("{} cannot be made (env.log.dir): {cause}", logs.display())))?;
        let command = job_cluster::command(&self.settings, &logs)?;
        let request = ClusterRequest {
            graph: graph.clone(),
            artifact: artifact.to_owned(),
            logs: logs.clone(),
            ends_with_client: self.ends_with_client,
        };
        let cluster = JobCluster::start(command, &request).await?;
        // By name: a certificate is for that.
        let address = format!("localhost:{}", cluster.clients.port());
        eprintln!("The job has a cluster of its own at {address}, whose logs are in {}.", logs.display());
        let client = Client::connect_with(&address, &self.access).await.map_err(failure)?;
        Ok(Place { client, cluster: Some(cluster) })
    }
}

/// What a program is told of an error of its client.
pub(super) fn failure(error: ClientError) -> Failure {
    Failure::fatal(format!("{:#}", anyhow::Error::from(error)))
}
