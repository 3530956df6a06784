//! A record that does not fit leaves the writer with `Full`, wherever the bytes end.

use millstream_api::record::{
    Record,
    archive::{Full, write},
};

use crate::{
    read,
    types::{Account, Click, Color, Everything, Kind, Nothing, Wide, click, everything},
    written,
};

/// Writes into the front of `len` bytes, aligned to 8.
fn write_into<T: Record>(record: T::Ref<'_>, len: usize) -> Result<usize, Full> {
    let mut bytes = vec![0; len + 8];
    let start = bytes.as_ptr().align_offset(8);
    let written = write::<T>(record, &mut bytes[start..start + len])?;
    assert!(written <= len);
    Ok(written)
}

fn fits_only_where_it_fits<T: Record>(record: T) {
    let archive = written::<T>(record.handle());
    let (needed, again) = (archive.as_slice().len(), read::<T>(&archive));
    for len in (0..needed).step_by(if cfg!(miri) { 29 } else { 1 }) {
        assert_eq!(write_into::<T>(record.handle(), len), Err(Full), "{len} of {needed}");
        assert_eq!(write_into::<T>(again, len), Err(Full), "{len} of {needed}, archived");
    }
    for len in needed..needed + 9 {
        assert_eq!(write_into::<T>(record.handle(), len), Ok(needed));
        assert_eq!(write_into::<T>(again, len), Ok(needed));
    }
}

#[test]
fn any_buffer_too_small_is_full() {
    fits_only_where_it_fits(click());
    fits_only_where_it_fits(Click { tags: vec![], kind: Kind::View, referrer: None, ..click() });
    fits_only_where_it_fits(everything());
    fits_only_where_it_fits(Wide::counted());
    fits_only_where_it_fits(Account("an account with a rather long name".into(), 9));
    fits_only_where_it_fits(Color::Blue);
    fits_only_where_it_fits(Nothing);
    fits_only_where_it_fits(vec![Some(everything()), None]);
}

#[test]
fn a_record_of_any_size_is_written_alone() {
    let mut large: Everything = everything();
    let bytes = if cfg!(miri) { 1_000 } else { 1_000_000 };
    large.blob = vec![7; bytes];
    let archive = written::<Everything>(large.handle());
    assert!(archive.as_slice().len() > bytes);
    assert_eq!(read::<Everything>(&archive).to_owned(), large);
}
