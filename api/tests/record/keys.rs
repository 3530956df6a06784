//! A key has one hash and one equality, whatever its form.

use millstream_api::record::{Key, Record};

use crate::{
    read,
    types::{Account, AccountParts, Color, Nothing, Owner, OwnerRef},
    written,
};

fn owners() -> Vec<Owner> {
    let machine = |rack, slot, names: &[&str], color| Owner::Machine {
        rack,
        slot,
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        color,
    };
    vec![
        Owner::Nobody,
        Owner::Account(Account("ann".into(), 1)),
        Owner::Account(Account("ann".into(), 2)),
        Owner::Account(Account("bob".into(), 1)),
        machine(1, None, &[], Color::Red),
        machine(1, None, &[], Color::Blue),
        machine(2, None, &[], Color::Red),
        machine(1, Some(0), &[], Color::Red),
        machine(1, Some(0), &["a name that is not written inline"], Color::Red),
    ]
}

#[test]
fn equal_keys_of_all_forms_are_the_same_and_hash_alike() {
    let owners = owners();
    let archives: Vec<_> = owners.iter().map(|owner| written::<Owner>(owner.handle())).collect();
    for (i, (owner, owner_archive)) in owners.iter().zip(&archives).enumerate() {
        let archived = read::<Owner>(owner_archive);
        assert_eq!(Owner::hash(owner.handle()), Owner::hash(archived));
        for (j, other) in archives.iter().enumerate() {
            assert_eq!(Owner::same(owner.handle(), read::<Owner>(other)), i == j, "{owner:?}");
            assert_eq!(Owner::hash(archived) == Owner::hash(read::<Owner>(other)), i == j, "{owner:?}");
        }
    }
}

#[test]
fn parts_are_the_same_key_as_the_record() {
    let account = Account("ann".into(), 1);
    let parts = AccountParts("ann", 1);
    assert!(Account::same(account.handle(), (&parts).into()));
    assert_eq!(Account::hash(account.handle()), Account::hash((&parts).into()));
    let owner = OwnerRef::Account((&parts).into());
    assert!(Owner::same(owner, Owner::Account(account).handle()));
    assert!(!Owner::same(owner, OwnerRef::Nobody));
    assert!(Nothing::same(Nothing.handle(), Nothing.handle()));
}

/// They decide where stored state belongs, so a change of them loses it.
#[test]
fn hashes_never_change() {
    let hashes: Vec<u32> = owners().iter().map(|owner| Owner::hash(owner.handle())).collect();
    assert_eq!(hashes, HASHES);
    assert_eq!(Account::hash(Account("ann".into(), 1).handle()), ACCOUNT);
    assert_eq!(Nothing::hash(Nothing.handle()), 0);
    assert_eq!([Color::Red, Color::Green, Color::Blue].map(|color| Color::hash((&color).into())), COLORS);
}
const HASHES: [u32; 9] =
    [0, 3371692900, 3642968617, 4219717690, 1135602157, 4266683652, 4115241363, 3883559889, 2989347477];
const ACCOUNT: u32 = 538591428;
const COLORS: [u32; 3] = [0, 885181228, 1694925799];
