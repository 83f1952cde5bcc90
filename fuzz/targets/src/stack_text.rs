//! Stacks as text.

use stack::Node;

/// Any text as a stack: what is understood prints as something that means the same, and what is
/// not is refused at a place in the text.
pub fn spec(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match text.parse::<Node>() {
        Ok(node) => {
            let printed = node.to_string();
            assert_eq!(printed.parse::<Node>().as_ref(), Ok(&node), "{printed}");
            let leaves = node.leaves().count();
            assert!(leaves > 0);
            // Members may be in any order, so comparing tries each with each, at every level: for
            // the few that a volume has.
            assert!(leaves > 8 || node.same_shape(&node), "{printed}");
        }
        Err(error) => {
            assert!(error.at <= text.len() && text.is_char_boundary(error.at), "{error}");
        }
    }
}
