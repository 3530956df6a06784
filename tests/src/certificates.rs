//! Certificates for tests, each of an authority of its own.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};

/// An authority, and a certificate of it for a host together with its key, as PEM.
///
/// # Panics
/// If it is no name of a host.
pub fn certificates(host: &str) -> (String, String) {
    let made = "a certificate can be made";
    let authority_key = KeyPair::generate().expect(made);
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Some take a certificate for its own authority's whose issuer is called as it is itself.
    authority.distinguished_name.push(DnType::CommonName, "an authority for tests");
    let authority = authority.self_signed(&authority_key).expect(made);
    let key = KeyPair::generate().expect(made);
    let own = CertificateParams::new(vec![host.to_owned()]).expect("it is a name of a host");
    let own = own.signed_by(&key, &authority, &authority_key).expect(made);
    (authority.pem(), own.pem() + &key.serialize_pem())
}
