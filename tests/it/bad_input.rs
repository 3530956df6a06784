//! Input that is not as it should be, through whole jobs: keys whose hash panics, files that vanish or cannot be read,
//! bytes that are no text, servers that hang up. The job fails and says where, or goes on as it was told to; the
//! process that runs it survives.

use std::{
    fs,
    io::Write,
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    thread,
};

use millstream::{
    connectors::{InvalidUtf8, SocketTextSource, TextFileSource},
    prelude::*,
};
use millstream_tests::{
    local,
    program::{fail, succeed},
};

fn failure_of(env: &StreamExecutionEnvironment) -> Failure {
    match env.execute("fails") {
        Err(JobError::Failed(failure)) => failure,
        other => panic!("the job should have failed: {other:?}"),
    }
}

/// That the process is none the worse for a failed job: another one runs in it.
fn assert_alive() {
    let env = local(&["parallelism.default=2"]);
    let collected = env.from_collection(0..100_u64).key_by::<u64, _>(|number| *number % 5).count().collect();
    let result = env.execute("alive").expect("the process still runs jobs");
    assert_eq!(result.collected(&collected).len(), 100);
}

/// A key with a hash written by hand, which one value breaks.
#[derive(Record, Debug, Clone, PartialEq, Eq)]
struct Account {
    number: u64,
}

impl Key for Account {
    fn hash(account: AccountRef<'_>) -> u32 {
        assert!(account.number() != 42, "account 42 has no hash");
        account.number() as u32
    }
    fn same(a: AccountRef<'_>, b: AccountRef<'_>) -> bool {
        a.number() == b.number()
    }
}

#[test]
fn a_key_whose_hash_panics_fails_the_job_with_operator_cause_and_position() {
    for chaining in [true, false] {
        let env = local(&["parallelism.default=1", &format!("pipeline.operator-chaining.enabled={chaining}")]);
        let accounts = env.from_collection((0..100).map(|number| Account { number }));
        let _ = accounts
            .filter(|_| true)
            .name("accounts")
            .key_by::<Account, _>(|account| *account)
            .count()
            .name("count")
            .discard();
        let failure = failure_of(&env);
        assert!(failure.message.contains("account 42 has no hash"), "{failure}");
        assert!(failure.message.contains("bad_input.rs"), "{failure}");
        // The hash is taken where the record leaves for the subtask that owns its key.
        assert_eq!(failure.operator.as_deref(), Some("accounts"), "{failure}");
        // 42 is the 43rd number, of whatever the task reads.
        let position = if chaining { "record 43 of the collection" } else { "record 43 of input channel 0" };
        assert_eq!(failure.position.as_deref(), Some(position), "{failure}");
        assert!(failure.backtrace.is_some());
        assert_alive();
    }
}

/// A folder with files, each with its content, which a source reads in the order of the names.
fn input(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, bytes)| fs::write(folder.path().join(name), bytes).unwrap());
    folder
}

fn lines(env: &StreamExecutionEnvironment, folder: &Path, policy: InvalidUtf8) -> DataStream<String> {
    env.from_source(TextFileSource::new([folder]).invalid_utf8(policy)).name("files")
}

#[test]
fn input_that_was_never_there_fails_the_job_and_is_named() {
    let folder = input(&[]);
    let missing = folder.path().join("missing");
    let env = local(&["parallelism.default=2"]);
    lines(&env, &missing, InvalidUtf8::Fail).discard();
    let failure = failure_of(&env);
    assert!(failure.message.contains(&missing.display().to_string()), "{failure}");
    assert!(failure.message.contains("does not exist"), "{failure}");
    assert_eq!(failure.operator.as_deref(), Some("files"), "{failure}");
    assert_alive();
}

#[test]
fn a_file_that_vanishes_before_it_is_read_fails_the_job_and_is_named() {
    static VICTIM: OnceLock<PathBuf> = OnceLock::new();
    let folder = input(&[("a", b"one\nnow\ntwo\n"), ("b", b"three\n")]);
    let victim = VICTIM.get_or_init(|| folder.path().join("b"));
    // One subtask reads file after file, and the map runs in its thread: so b is listed, not yet open, and goes.
    let env = local(&["parallelism.default=1"]);
    let _ = lines(&env, folder.path(), InvalidUtf8::Fail)
        .map(|line| {
            if line == "now" {
                fs::remove_file(VICTIM.get().expect("set before the job")).expect("the victim is there");
            }
            line.len() as u64
        })
        .discard();
    let failure = failure_of(&env);
    assert!(failure.message.contains(&victim.display().to_string()), "{failure}");
    assert!(failure.message.contains("put it back and restart"), "{failure}");
    assert!(failure.operator.as_deref().is_some_and(|operator| operator.contains("files")), "{failure}");
    assert!(failure.position.as_deref().is_some_and(|position| position.contains("/b")), "{failure}");
    assert_alive();
}

#[test]
fn a_file_that_is_cut_off_before_it_is_read_fails_the_job_instead_of_losing_lines() {
    static VICTIM: OnceLock<PathBuf> = OnceLock::new();
    let folder = input(&[("a", b"one\nnow\ntwo\n"), ("b", b"three\nfour\nfive\n")]);
    let victim = VICTIM.get_or_init(|| folder.path().join("b"));
    let env = local(&["parallelism.default=1"]);
    let _ = lines(&env, folder.path(), InvalidUtf8::Fail)
        .map(|line| {
            if line == "now" {
                fs::write(VICTIM.get().expect("set before the job"), "three\n").expect("the victim is there");
            }
            line.len() as u64
        })
        .discard();
    let failure = failure_of(&env);
    assert!(failure.message.contains(&victim.display().to_string()), "{failure}");
    assert!(failure.message.contains("had 16 bytes") && failure.message.contains("ends at 6"), "{failure}");
    assert_alive();
}

#[test]
fn a_file_without_permission_fails_the_job_at_once_and_says_so() {
    let folder = input(&[("a", b"one\n"), ("b", b"two\n")]);
    let unreadable = folder.path().join("b");
    fs::set_permissions(&unreadable, fs::Permissions::from_mode(0o000)).unwrap();
    let mut job = if fs::File::open(&unreadable).is_ok() {
        // We are root, who may read everything: the job is started without that right.
        let mut job = Command::new("setpriv");
        job.args(["--bounding-set=-dac_override,-dac_read_search", env!("CARGO_BIN_EXE_word_count_job")]);
        job
    } else {
        Command::new(env!("CARGO_BIN_EXE_word_count_job"))
    };
    job.arg(folder.path()).arg(folder.path().join("output")).current_dir(folder.path());
    // It would wait for a minute before another attempt; permissions are no reason for one.
    job.args(["-Drestart-strategy.type=fixed-delay", "-Drestart-strategy.fixed-delay.delay=1 min"]);
    let (code, said) = fail(&mut job);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("job failed"), "{said}");
    assert!(said.contains(&unreadable.display().to_string()) && said.contains("no permission"), "{said}");
    fs::set_permissions(&unreadable, fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_dir_all(folder.path().join("output")).unwrap();
    succeed(Command::new(env!("CARGO_BIN_EXE_word_count_job")).arg(folder.path()).arg(folder.path().join("output")));
}

/// "caf\xe9" is Latin-1.
const MIXED: &[u8] = b"plain\ncaf\xe9 noir\nna\xc3\xafve\nhalf \xc3\n\xff\xff\n";

#[test]
fn invalid_utf8_fails_the_job_with_file_and_offset() {
    let folder = input(&[("a", b"fine\n"), ("b", MIXED)]);
    let env = local(&["parallelism.default=1"]);
    lines(&env, folder.path(), InvalidUtf8::Fail).map(|line| line.to_owned()).discard();
    let failure = failure_of(&env);
    assert!(failure.message.contains("/b is not UTF-8 text at byte offset 9"), "{failure}");
    assert!(failure.message.contains("InvalidUtf8::Skip"), "{failure}");
    assert!(failure.position.as_deref().is_some_and(|position| position.contains("byte offset 6")), "{failure}");
    assert!(failure.operator.as_deref().is_some_and(|operator| operator.contains("files")), "{failure}");
    assert_alive();
}

#[test]
fn invalid_utf8_is_skipped_and_counted_or_replaced_as_wanted() {
    let folder = input(&[("a", b"fine\n"), ("b", MIXED)]);
    let run = |policy| {
        let env = local(&["parallelism.default=2"]);
        let collected = lines(&env, folder.path(), policy).rebalance().map(|line| line.to_owned()).collect();
        let result = env.execute("policies").expect("the job goes on");
        let mut lines = result.collected(&collected);
        lines.sort();
        (lines, result.accumulator("invalid-utf8-lines"))
    };
    let skipped = ["fine", "na\u{ef}ve", "plain"].map(str::to_owned).to_vec();
    assert_eq!(run(InvalidUtf8::Skip), (skipped, 3));
    let mut replaced = ["fine", "plain", "caf\u{fffd} noir", "na\u{ef}ve", "half \u{fffd}", "\u{fffd}\u{fffd}"];
    replaced.sort_unstable();
    assert_eq!(run(InvalidUtf8::Replace), (replaced.map(str::to_owned).to_vec(), 0));
}

/// A server whose connections are served one after another, each in its own way.
fn serve(ways: impl IntoIterator<Item = fn(TcpStream)> + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || ways.into_iter().for_each(|way| way(listener.accept().unwrap().0)));
    port
}

fn counted(source: SocketTextSource) -> Vec<(String, u64)> {
    let env = local(&["parallelism.default=2"]);
    let counts = env.from_source(source).name("socket").key_by::<String, _>(|line| *line).count();
    let collected = counts.collect();
    let result = env.execute("socket").expect("the end of a connection is the end of the stream");
    let mut seen = result.collected(&collected);
    seen.sort();
    seen
}

fn pairs<const N: usize>(pairs: [(&str, u64); N]) -> Vec<(String, u64)> {
    pairs.map(|(word, count)| (word.to_owned(), count)).to_vec()
}

#[test]
fn a_socket_that_closes_ends_the_job_with_all_that_was_sent() {
    let port = serve([(|mut stream| stream.write_all(b"a\nb\na\nlast").unwrap()) as fn(TcpStream)]);
    let seen = counted(SocketTextSource::new("127.0.0.1", port));
    assert_eq!(seen, pairs([("a", 1), ("a", 2), ("b", 1), ("last", 1)]));
}

#[test]
fn a_socket_that_closes_is_connected_again_as_often_as_wanted() {
    let ways: [fn(TcpStream); 3] = [
        |mut stream| stream.write_all(b"a\nb\n").unwrap(),
        |mut stream| stream.write_all(b"a\n").unwrap(),
        |_| panic!("a third connection was not wanted"),
    ];
    let seen = counted(SocketTextSource::new("127.0.0.1", serve(ways)).reconnect(1));
    assert_eq!(seen, pairs([("a", 1), ("a", 2), ("b", 1)]));
}

#[test]
fn a_server_that_does_not_listen_fails_the_job_and_is_named() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let env = local(&["parallelism.default=2"]);
    env.from_source(SocketTextSource::new("127.0.0.1", port)).name("socket").discard();
    let failure = failure_of(&env);
    assert!(failure.message.contains(&format!("127.0.0.1:{port}")), "{failure}");
    assert_eq!(failure.operator.as_deref(), Some("socket"), "{failure}");
    assert_alive();
}
