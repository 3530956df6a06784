//! Who is believed, and what both sides are told if somebody is not.

use std::time::SystemTime;

use millstream_model::id::WorkerId;
use millstream_shuffle::transport::{
    Closed, Options,
    identity::{ClusterCa, Identity},
};

use crate::net::{DAY, Kind, Net, authority, identity};

/// Dials worker 1 as worker 0 with these identities, and returns how it ends for the two.
fn refused(kind: Kind, dials: Identity, answers: Identity) -> (Closed, Closed) {
    let mut net = Net::new(kind, 1);
    net.add(kind.listen(dials, Options::default()));
    net.add(kind.listen(answers, Options::default()));
    net.dial(0, 1);
    net.until(|net| {
        assert!(net.links().all(|link| !link.is_open()), "nobody may be believed");
        net.all_links(2, |link| link.closed().is_some())
    });
    let mut ends = net.links().map(|link| link.closed().expect("both are closed").clone());
    (ends.next().expect("the dialler"), ends.next().expect("the other"))
}

#[track_caller]
fn assert_says(closed: &Closed, words: &[&str]) {
    let text = closed.to_string();
    assert!(matches!(closed, Closed::Refused(_)), "{text}");
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
}

/// The same authority, but its certificates are for a cluster of another name.
fn renamed(ca: &ClusterCa) -> ClusterCa {
    let mut bytes = postcard::to_stdvec(ca).expect("it can be encoded");
    // The name comes first, after its length.
    bytes[1..33].copy_from_slice(b"ffffffffffffffffffffffffffffffff");
    postcard::from_bytes(&bytes).expect("it is an authority")
}

pub fn an_authority_of_another_cluster_is_not_believed(kind: Kind) {
    let (dialler, other) = refused(kind, identity(&authority(1), 0), identity(&authority(2), 1));
    assert_says(&dialler, &["of the peer: ", "authority of another cluster", "UnknownIssuer"]);
    assert_says(&other, &["by the peer: ", "authority of another cluster"]);
    // One that calls itself the same.
    let (dialler, other) = refused(kind, identity(&authority(1), 0), identity(&authority(1), 1));
    assert_says(&dialler, &["of the peer: ", "a signature is wrong", "BadSignature"]);
    assert_says(&other, &["by the peer: ", "a signature is wrong"]);
}

pub fn a_dialler_of_another_authority_is_not_believed(kind: Kind) {
    let (here, there) = (authority(1), authority(2));
    // It believes the one that it dials.
    let here = identity(&here, 1);
    let (cluster, authority) = (here.cluster.clone(), here.authority.clone());
    let (dialler, other) = refused(kind, Identity { cluster, authority, ..identity(&there, 0) }, here);
    assert_says(&dialler, &["by the peer: ", "authority of another cluster"]);
    assert_says(&other, &["of the peer: ", "authority of another cluster", "UnknownIssuer"]);
}

pub fn a_name_of_another_cluster_is_not_believed(kind: Kind) {
    let ca = authority(1);
    let foreign = renamed(&ca);
    let here = identity(&ca, 1);
    // It was signed by the cluster's authority, and dials by the right name.
    let dialler =
        Identity { cluster: here.cluster.clone(), authority: here.authority.clone(), ..identity(&foreign, 0) };
    let (dialler, other) = refused(kind, dialler, here);
    assert_says(&dialler, &["by the peer: "]);
    assert_says(&other, &["of the peer: "]);
}

pub fn another_worker_than_the_one_dialled_is_not_believed(kind: Kind) {
    let ca = authority(1);
    let (dialler, other) = refused(kind, identity(&ca, 0), identity(&ca, 4));
    assert_says(&dialler, &["of the peer: ", "the certificate is another's", "worker-1.", "worker-4."]);
    assert_says(&other, &["by the peer: ", "the certificate is another's"]);
}

pub fn an_expired_certificate_is_not_believed(kind: Kind) {
    let ca = authority(1);
    let expired = |worker| ca.issue(WorkerId(worker), SystemTime::now() - 2 * DAY, DAY).expect("it is sound");
    let (dialler, other) = refused(kind, identity(&ca, 0), expired(1));
    assert_says(&dialler, &["of the peer: ", "expired"]);
    assert_says(&other, &["by the peer: ", "expired"]);
    let (dialler, other) = refused(kind, expired(0), identity(&ca, 1));
    assert_says(&dialler, &["by the peer: ", "expired"]);
    assert_says(&other, &["of the peer: ", "expired"]);
}

crate::over! { [quic, tls, quic_by_ring, tls_by_ring] {
    an_authority_of_another_cluster_is_not_believed,
    a_dialler_of_another_authority_is_not_believed,
    a_name_of_another_cluster_is_not_believed,
    another_worker_than_the_one_dialled_is_not_believed,
    an_expired_certificate_is_not_believed,
} }
