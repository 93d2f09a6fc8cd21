//! Tools of the Responses API as those of a chat.

use serde_json::value::RawValue;

use super::request::{member, rename};
use crate::fields::Fields;
use crate::json::{raw, read_str};
use crate::responses::BadRequest;

/// Sets the function tools and how to choose among them; nothing where there is none, since servers refuse a choice
/// among no tools.
pub(super) fn set_tools(to: &mut Fields<'_>, from: &Fields<'_>) -> Result<(), BadRequest> {
    let Some(tools) = member(from, "tools") else {
        return Ok(());
    };
    let wrong = || BadRequest::param("tools", "tools must be an array of objects");
    let tools: Vec<&RawValue> = serde_json::from_str(tools.get()).map_err(|_| wrong())?;
    let mut functions = Vec::new();
    for tool in tools {
        let tool = Fields::parse(tool.get().as_bytes()).map_err(|_| wrong())?;
        if tool.get_str("type").as_deref() == Some("function") {
            functions.push(function_tool(&tool));
        }
    }
    if functions.is_empty() {
        return Ok(());
    }
    to.set("tools", raw(&functions));
    rename(to, from, "parallel_tool_calls", "parallel_tool_calls");
    if let Some(choice) = member(from, "tool_choice").and_then(tool_choice) {
        to.set("tool_choice", choice);
    }
    Ok(())
}

fn function_tool(tool: &Fields<'_>) -> Box<RawValue> {
    // Some clients send chat's shape already.
    if tool.get("function").is_some() {
        return tool.to_raw();
    }
    let mut function = Fields::default();
    for name in ["name", "description", "parameters", "strict"] {
        rename(&mut function, tool, name, name);
    }
    nested(function)
}

/// `{"type":"function","function":{...}}`
fn nested(function: Fields<'_>) -> Box<RawValue> {
    let mut out = Fields::default();
    out.set_str("type", "function");
    out.set("function", function.to_raw());
    out.to_raw()
}

/// A mode, or one function. A choice among some of the tools is its mode; one of a hosted tool cannot be followed.
fn tool_choice(choice: &RawValue) -> Option<Box<RawValue>> {
    if read_str(choice).is_some() {
        return Some(choice.to_owned());
    }
    let choice = Fields::parse(choice.get().as_bytes()).ok()?;
    match choice.get_str("type").as_deref() {
        Some("function") if choice.get("function").is_some() => Some(choice.to_raw()),
        Some("function") => {
            let mut function = Fields::default();
            rename(&mut function, &choice, "name", "name");
            Some(nested(function))
        }
        Some("allowed_tools") => choice.get_str("mode").map(|mode| raw(&*mode)),
        _ => None,
    }
}
