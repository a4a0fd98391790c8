//! Addresses as plugins write them: `0#echo`, or `echo`.
//!
//! Other than in what people type, all that follows the first `#` is the name, so that each address of UTF-8 text has a form that
//! comes back as the same address.

use std::fmt::Write;

use portolan_runtime::Address;

/// The address is not text.
pub(crate) struct NotText;

/// Writes the printed form into `text`, which is emptied first.
pub(crate) fn print(address: &Address, text: &mut String) -> Result<(), NotText> {
    let name = address.as_str().ok_or(NotText)?;
    text.clear();
    if address.is_local() {
        text.push_str("0#");
    } else {
        // Writing into a `String` does not fail.
        let _ = write!(text, "{}#", address.transport());
    }
    text.push_str(name);
    Ok(())
}

/// Reads the printed form.
pub(crate) fn parse(text: &str) -> Result<Address, String> {
    if text.len() > portolan_runtime::MAX_ADDRESS_LENGTH {
        return Err(format!(
            "an address of {} bytes is longer than {}",
            text.len(),
            portolan_runtime::MAX_ADDRESS_LENGTH
        ));
    }
    match text.split_once('#') {
        None => Ok(Address::local(text)),
        Some(("0", name)) => Ok(Address::local(name)),
        Some((transport, name)) => match transport.parse::<u8>() {
            Ok(transport) => Ok(Address::new(transport, name.as_bytes())),
            Err(_) => Err(format!(
                "`{}` is no address: what stands before `#` must be a number from 0 to 255",
                crate::error::one_line(text, 128)
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_of_text_comes_back_as_itself() {
        let mut text = String::new();
        for address in [
            Address::local("echo"),
            Address::local(""),
            Address::local("a#b#c"),
            Address::new(1, b"127.0.0.1:1"),
            Address::local("ümläut \n\""),
        ] {
            assert!(print(&address, &mut text).is_ok());
            assert_eq!(parse(&text), Ok(address));
        }
        assert_eq!(parse("echo"), Ok(Address::local("echo")));
        assert!(print(&Address::local([0xff]), &mut text).is_err());
        assert!(parse("x#y").is_err());
        assert!(parse("256#y").is_err());
        assert!(parse(&"a".repeat(10_000)).is_err());
    }
}
