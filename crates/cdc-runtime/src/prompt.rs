//! Who is at the prompt.

/// The principal of whoever runs a command, `user:<name>`, as the environment names him. Nothing is
/// decided by it: it says in records who it was.
pub fn user_at_prompt() -> String {
    let user = ["USER", "LOGNAME", "USERNAME"].iter().find_map(|name| std::env::var(name).ok());
    format!("user:{}", user.as_deref().unwrap_or("unknown"))
}
