"""A client of a JobManager in Python, of messages and calls that are generated from client/proto.

usage: job_submission.py HOST:PORT CA TOKEN ARTIFACT [ARGS]...

Has the job of an artifact run, which never ends by itself, and does everything with it that a client may. Without TLS
and a token, CA and TOKEN are empty. Ends with 0 if all was as it should be, and else says what was not.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from millstream.v1 import submission_pb2 as pb
from millstream.v1 import submission_pb2_grpc

# For each call, in seconds. None is meant to come near it.
LIMIT = 60
CHUNK_BYTES = 1 << 20


class Metadata(grpc.AuthMetadataPlugin):
    """The token, in each call."""

    def __init__(self, token):
        self.token = token

    def __call__(self, context, callback):
        callback((("authorization", f"Bearer {self.token}"),), None)


def connect(address, ca, token):
    # A cluster of this machine is not asked by way of others.
    options = [("grpc.enable_http_proxy", 0)]
    if not ca:
        return grpc.insecure_channel(address, options)
    credentials = grpc.ssl_channel_credentials(Path(ca).read_bytes())
    if token:
        credentials = grpc.composite_channel_credentials(credentials, grpc.metadata_call_credentials(Metadata(token)))
    return grpc.secure_channel(address, credentials, options)


def check(holds, what):
    if not holds:
        sys.exit(f"not so: {what}")
    print("ok:", what, flush=True)


def refused(call, code, words):
    """That a call is refused, how, and why."""
    try:
        answer = call()
    except grpc.RpcError as error:
        check(error.code() == code and words in error.details(), f"{code.name} for {words!r}: {error.details()}")
        return
    sys.exit(f"{code.name} was expected for {words!r}, and this came: {answer}")


def planned(artifact, arguments):
    """The job graph of an artifact: what it prints in the role `plan`, as text."""
    role = {**os.environ, "MILLSTREAM_ROLE": "plan"}
    return subprocess.run([artifact, *arguments], env=role, stdout=subprocess.PIPE, check=True).stdout


def upload(jobs, sha256, content):
    def messages():
        yield pb.UploadArtifactRequest(sha256=sha256)
        for start in range(0, len(content), CHUNK_BYTES):
            yield pb.UploadArtifactRequest(chunk=content[start : start + CHUNK_BYTES])

    return jobs.UploadArtifact(messages(), timeout=LIMIT).bytes


def errors(jobs, graph):
    refused(lambda: jobs.GetJob(pb.GetJobRequest(job_id="0" * 31 + "7"), timeout=LIMIT), grpc.StatusCode.NOT_FOUND, "no job")
    unknown = pb.WatchJobRequest(job_id="0" * 31 + "7")
    refused(lambda: list(jobs.WatchJob(unknown, timeout=LIMIT)), grpc.StatusCode.NOT_FOUND, "no job")
    nonsense = pb.CancelJobRequest(job_id="nonsense")
    refused(lambda: jobs.CancelJob(nonsense, timeout=LIMIT), grpc.StatusCode.INVALID_ARGUMENT, "nonsense")
    for text in [b"", b"nonsense", b'{"job_id": 1}', b"[" * 10_000]:
        request = pb.SubmitJobRequest(job_graph=text)
        refused(lambda: jobs.SubmitJob(request, timeout=LIMIT), grpc.StatusCode.INVALID_ARGUMENT, "cannot be read")
    request = pb.SubmitJobRequest(job_graph=graph)
    refused(lambda: jobs.SubmitJob(request, timeout=LIMIT), grpc.StatusCode.FAILED_PRECONDITION, "was not uploaded")
    other = hashlib.sha256(b"other").hexdigest()
    refused(lambda: upload(jobs, other, b"one"), grpc.StatusCode.INVALID_ARGUMENT, "damaged on its way")


def job(jobs, graph, artifact):
    described = json.loads(graph)
    sha256, job_id = described["artifact"]["sha256"], described["job_id"]
    content = Path(artifact).read_bytes()
    check(hashlib.sha256(content).hexdigest() == sha256, "the graph names the artifact that has made it")
    is_there = lambda: jobs.HasArtifact(pb.HasArtifactRequest(sha256=sha256), timeout=LIMIT).is_there
    check(not is_there(), "the artifact is not there")
    check(upload(jobs, sha256, content) == len(content), f"all {len(content)} bytes of the artifact were taken")
    check(is_there(), "the artifact is there")

    cluster = jobs.GetCluster(pb.GetClusterRequest(), timeout=LIMIT)
    check(len(cluster.task_managers) == 1 and cluster.task_managers[0].free_slots == 2, "both slots are free")
    submitted = jobs.SubmitJob(pb.SubmitJobRequest(job_graph=graph), timeout=LIMIT)
    check(submitted.job_id == job_id, f"the job {job_id} was accepted")
    again = pb.SubmitJobRequest(job_graph=graph)
    refused(lambda: jobs.SubmitJob(again, timeout=LIMIT), grpc.StatusCode.ALREADY_EXISTS, job_id)

    watch = jobs.WatchJob(pb.WatchJobRequest(job_id=job_id, interval_millis=50), timeout=LIMIT)
    for answer in watch:
        check(not answer.HasField("result"), f"the job is {pb.JobStatus.Name(answer.job.status)}")
        if answer.job.records_read > 0 and answer.job.running_tasks == answer.job.tasks:
            break
    check(answer.job.status == pb.JOB_STATUS_RUNNING and answer.job.restarts == 0, "it runs, and reads")

    listed = jobs.ListJobs(pb.ListJobsRequest(), timeout=LIMIT).jobs
    check([(job.job_id, job.name) for job in listed] == [(job_id, described["name"])], "it is the one that is listed")
    check(listed[0].start_time_millis > 0 and listed[0].end_time_millis == 0, "it has started, and not ended")

    trigger = lambda: jobs.TriggerCheckpoint(pb.TriggerCheckpointRequest(job_id=job_id), timeout=LIMIT).checkpoint_id
    first, second = trigger(), trigger()
    check(second > first > 0, f"checkpoints {first} and {second} were taken")
    completed = jobs.GetJob(pb.GetJobRequest(job_id=job_id), timeout=LIMIT).job.completed_checkpoints
    check(completed >= 2, "they are counted")

    jobs.CancelJob(pb.CancelJobRequest(job_id=job_id), timeout=LIMIT)
    *_, last = watch
    check(last.result.status == pb.JOB_STATUS_CANCELED, "who watches is told of the end, and then no more")
    check(last.job.end_time_millis >= last.job.start_time_millis, "it has ended")
    kept = jobs.GetJob(pb.GetJobRequest(job_id=job_id), timeout=LIMIT)
    check(kept.HasField("result") and kept.result == last.result, "its result is kept")
    refused(trigger, grpc.StatusCode.FAILED_PRECONDITION, "")


def server(channel):
    health = health_pb2_grpc.HealthStub(channel)
    for service in ["", "millstream.v1.JobSubmission"]:
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=LIMIT)
        check(answer.status == health_pb2.HealthCheckResponse.SERVING, f"service {service!r} is well")
    unknown = health_pb2.HealthCheckRequest(service="none")
    refused(lambda: health.Check(unknown, timeout=LIMIT), grpc.StatusCode.NOT_FOUND, "")

    described = ProtoReflectionDescriptorDatabase(channel)
    names = set(described.get_services())
    check({"millstream.v1.JobSubmission", "grpc.health.v1.Health"} <= names, f"the services are {sorted(names)}")
    # What is described is what this client was made from.
    service = DescriptorPool(described).FindServiceByName("millstream.v1.JobSubmission")
    made = pb.DESCRIPTOR.services_by_name["JobSubmission"]
    check(
        [(method.name, method.input_type.full_name, method.output_type.full_name) for method in service.methods]
        == [(method.name, method.input_type.full_name, method.output_type.full_name) for method in made.methods],
        f"all {len(made.methods)} methods are described",
    )


def main():
    address, ca, token, artifact, *arguments = sys.argv[1:]
    if token:
        with connect(address, ca, "") as channel:
            jobs = submission_pb2_grpc.JobSubmissionStub(channel)
            listing = lambda: jobs.ListJobs(pb.ListJobsRequest(), timeout=LIMIT)
            refused(listing, grpc.StatusCode.UNAUTHENTICATED, "security.token-file")
    graph = planned(artifact, arguments)
    with connect(address, ca, token) as channel:
        jobs = submission_pb2_grpc.JobSubmissionStub(channel)
        server(channel)
        errors(jobs, graph)
        job(jobs, graph, artifact)
    print("all was as it should be")


main()
