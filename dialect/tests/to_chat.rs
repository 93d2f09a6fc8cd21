//! A create as a chat completions request: every kind of item, tool and parameter.

use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokenlag_dialect::responses::{BadRequest, Create, to_chat};

fn translate(create: &Value, history: &[Value]) -> Result<Value, BadRequest> {
    let json = create.to_string();
    let history: Vec<Box<RawValue>> = history
        .iter()
        .map(|item| serde_json::value::to_raw_value(item).unwrap())
        .collect();
    let create = Create::parse(json.as_bytes()).unwrap();
    let body = to_chat(&create, history.iter().map(|item| &**item))?;
    Ok(serde_json::from_slice(&body).unwrap())
}

/// The messages of a conversation.
#[track_caller]
fn check_messages(instructions: Option<&str>, history: Value, input: Value, want: Value) {
    let mut create = json!({"input": input});
    if let Some(text) = instructions {
        create["instructions"] = text.into();
    }
    let chat = translate(&create, history.as_array().unwrap()).unwrap();
    assert_eq!(chat["messages"], want);
}

/// The body's members beside the messages and those that are always there.
#[track_caller]
fn check_members(members: Value, want: Value) {
    let mut create = members;
    create["input"] = "a".into();
    let mut chat = translate(&create, &[]).unwrap();
    let body = chat.as_object_mut().unwrap();
    let always = json!({
        "messages": [{"role": "user", "content": "a"}],
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    for (name, value) in always.as_object().unwrap() {
        assert_eq!(body.remove(name).as_ref(), Some(value), "{name}");
    }
    assert_eq!(chat, want);
}

#[test]
fn a_turn_of_codex() {
    let create = json!({
        "type": "response.create", "stream_id": "main", "model": "m", "instructions": "You are a coding agent.",
        "previous_response_id": "resp_1", "stream": true, "store": false, "generate": true, "include": [],
        "input": [{"type": "function_call_output", "call_id": "call_1", "output": "ok"}],
        "tools": [
            {"type": "function", "name": "shell", "description": "Runs", "strict": false, "parameters": {"type": "object"}},
            {"type": "custom", "name": "apply_patch", "format": {"type": "grammar"}},
            {"type": "web_search", "external_web_access": false},
        ],
        "tool_choice": "auto", "parallel_tool_calls": true, "reasoning": {"effort": "low", "summary": "auto"},
        "text": {"verbosity": "low"}, "prompt_cache_key": "k", "client_metadata": {"a": "b"},
    });
    let history = [
        json!({"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Sandboxed."}]}),
        json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "List"}, {"type": "input_text", "text": "files"}]}),
        json!({"type": "reasoning", "id": "rs_1", "summary": [], "content": null, "encrypted_content": "x"}),
        json!({"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "annotations": [], "text": "On it."}]}),
        json!({"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "shell", "arguments": "{\"cmd\":[\"ls\"]}", "status": "completed"}),
    ];
    let want = json!({
        "model": "m",
        "prompt_cache_key": "k",
        "messages": [
            {"role": "system", "content": "You are a coding agent.\n\nSandboxed."},
            {"role": "user", "content": "List\nfiles"},
            {"role": "assistant", "content": "On it.", "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "shell", "arguments": "{\"cmd\":[\"ls\"]}"}},
            ]},
            {"role": "tool", "content": "ok", "tool_call_id": "call_1"},
        ],
        "stream": true,
        "stream_options": {"include_usage": true},
        "reasoning_effort": "low",
        "verbosity": "low",
        "tools": [{"type": "function", "function":
            {"name": "shell", "description": "Runs", "parameters": {"type": "object"}, "strict": false}}],
        "parallel_tool_calls": true,
        "tool_choice": "auto",
    });
    assert_eq!(translate(&create, &history).unwrap(), want);
}

#[test]
fn messages_of_every_shape() {
    check_messages(
        None,
        json!([]),
        json!("hi"),
        json!([{"role": "user", "content": "hi"}]),
    );
    check_messages(
        Some("Be brief."),
        json!([]),
        json!([{"role": "user", "content": "a"}, {"role": "system", "content": "b"}, {"role": "developer", "content": "c"}]),
        json!([
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "a"},
            {"role": "system", "content": "b\n\nc"},
        ]),
    );
    check_messages(
        None,
        json!([]),
        json!([
            {"type": "message", "role": "user", "content": [
                {"type": "input_text", "text": "look"},
                {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
                {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="},
            ]},
            {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        ]),
        json!([
            {"role": "user", "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
                {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"}},
            ]},
            {"role": "assistant", "content": "No."},
        ]),
    );
}

#[test]
fn calls_and_their_outputs() {
    let call = |id: &str, name: &str| json!({"type": "function_call", "call_id": id, "name": name, "arguments": "{}"});
    let output = |id: &str| json!({"type": "function_call_output", "call_id": id, "output": "ok"});
    let called = |id: &str, name: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}});
    let tool = |id: &str| json!({"role": "tool", "content": "ok", "tool_call_id": id});
    // Adjacent calls are one message; reasoning between them is not there.
    check_messages(
        None,
        json!([{"role": "user", "content": "a"}, call("1", "f"), {"type": "reasoning", "summary": []}, call("2", "g")]),
        json!([output("1"), output("2")]),
        json!([
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": null, "tool_calls": [called("1", "f"), called("2", "g")]},
            tool("1"),
            tool("2"),
        ]),
    );
    // One after the other they are not.
    check_messages(
        None,
        json!([call("1", "f"), output("1"), call("2", "g"), output("2")]),
        json!([]),
        json!([
            {"role": "assistant", "content": null, "tool_calls": [called("1", "f")]},
            tool("1"),
            {"role": "assistant", "content": null, "tool_calls": [called("2", "g")]},
            tool("2"),
        ]),
    );
    // Text after a call is a message of its own.
    check_messages(
        None,
        json!([call("1", "f"), {"role": "assistant", "content": "then"}, call("2", "g")]),
        json!([]),
        json!([
            {"role": "assistant", "content": null, "tool_calls": [called("1", "f")]},
            {"role": "assistant", "content": "then", "tool_calls": [called("2", "g")]},
        ]),
    );
}

#[test]
fn calls_of_other_kinds() {
    check_messages(
        None,
        json!([
            {"type": "custom_tool_call", "call_id": "1", "name": "apply_patch", "input": "*** \"Begin\""},
            {"type": "local_shell_call", "call_id": "2", "action": {"type": "exec", "command": ["ls"]}},
            {"type": "web_search_call", "id": "ws_1", "status": "completed"},
            {"type": "function_call", "id": "fc_9", "name": "f", "arguments": {"a": 1}},
            {"type": "ghost_snapshot"},
        ]),
        json!([
            {"type": "custom_tool_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "done"}]},
            {"type": "local_shell_call_output", "call_id": "2", "output": {"exit": 0}},
            {"type": "function_call_output", "call_id": "fc_9", "output": null},
        ]),
        json!([
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "apply_patch", "arguments": "{\"input\":\"*** \\\"Begin\\\"\"}"}},
                {"id": "2", "type": "function", "function": {"name": "local_shell", "arguments": "{\"command\":[\"ls\"],\"type\":\"exec\"}"}},
                {"id": "fc_9", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}},
            ]},
            {"role": "tool", "content": "done", "tool_call_id": "1"},
            {"role": "tool", "content": "{\"exit\":0}", "tool_call_id": "2"},
            {"role": "tool", "content": "", "tool_call_id": "fc_9"},
        ]),
    );
}

#[test]
fn parameters() {
    check_members(
        json!({
            "temperature": 0, "top_p": 0.9, "seed": 7, "stop": ["x"], "ignore_eos": true, "user": "u", "service_tier": "flex",
            "max_output_tokens": 64, "stream": false, "stream_options": {"include_obfuscation": false},
            "top_logprobs": 3, "include": ["x"], "truncation": "auto", "metadata": {"a": "b"}, "n": 2, "max_tool_calls": 3,
        }),
        json!({
            "temperature": 0, "top_p": 0.9, "seed": 7, "stop": ["x"], "ignore_eos": true, "user": "u", "service_tier": "flex",
            "max_tokens": 64,
        }),
    );
    check_members(
        json!({"max_output_tokens": null, "reasoning": null, "text": null, "tools": null, "tool_choice": null}),
        json!({}),
    );
    check_members(
        json!({"reasoning": {"effort": null}, "text": {"format": {"type": "text"}}}),
        json!({}),
    );
}

#[test]
fn formats_of_text() {
    check_members(
        json!({"text": {"format": {"type": "json_schema", "name": "n", "strict": true, "schema": {"type": "object"}}}}),
        json!({"response_format": {"type": "json_schema",
            "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": true}}}),
    );
    check_members(
        json!({"text": {"format": {"type": "json_object"}}}),
        json!({"response_format": {"type": "json_object"}}),
    );
}

#[test]
fn tools_and_their_choice() {
    let flat = json!({"type": "function", "name": "f", "parameters": null, "strict": null});
    let nested = json!({"type": "function", "function": {"name": "f"}});
    for (choice, want) in [
        (json!("required"), json!("required")),
        (json!({"type": "function", "name": "f"}), nested.clone()),
        (nested.clone(), nested.clone()),
        (
            json!({"type": "allowed_tools", "mode": "auto", "tools": []}),
            json!("auto"),
        ),
    ] {
        check_members(
            json!({"tools": [flat], "tool_choice": choice}),
            json!({"tools": [nested], "tool_choice": want}),
        );
    }
    check_members(
        json!({"tools": [nested], "tool_choice": {"type": "web_search"}, "parallel_tool_calls": false}),
        json!({"tools": [nested], "parallel_tool_calls": false}),
    );
    // No choice among no tools.
    check_members(
        json!({"tools": [{"type": "local_shell"}], "tool_choice": "auto", "parallel_tool_calls": true}),
        json!({}),
    );
}

#[test]
fn what_a_chat_cannot_say() {
    let item = |item: Value| json!({"input": [item]});
    let part = |part: Value| item(json!({"role": "user", "content": [part]}));
    for (create, param) in [
        (json!({}), "input"),
        (json!({"input": []}), "input"),
        (json!({"input": 7}), "input"),
        (item(json!(7)), "input"),
        (item(json!({"role": 7})), "input"),
        (
            item(json!({"type": "message", "content": "no role"})),
            "input",
        ),
        (
            item(json!({"type": "item_reference", "id": "msg_1"})),
            "input",
        ),
        (item(json!({"type": "function_call", "name": "f"})), "input"),
        (
            item(json!({"type": "function_call_output", "output": "x"})),
            "input",
        ),
        (item(json!({"role": "user", "content": 7})), "input"),
        (
            part(json!({"type": "input_image", "file_id": "file_1"})),
            "input",
        ),
        (
            part(json!({"type": "input_file", "file_url": "http://a"})),
            "input",
        ),
        (
            json!({"input": "a", "conversation": "conv_1"}),
            "conversation",
        ),
        (json!({"input": "a", "prompt": {"id": "p"}}), "prompt"),
        (json!({"input": "a", "tools": {}}), "tools"),
        (json!({"input": "a", "tools": [7]}), "tools"),
    ] {
        let error = translate(&create, &[]).unwrap_err();
        assert_eq!(error.param, Some(param), "{create}: {error}");
    }
}

#[test]
fn values_pass_byte_for_byte() {
    let create = br#"{"model":"m","x":1.50,"input":"a","tools":[{"type":"function","name":"f","parameters":{ "z":1e5, "a":[] }}]}"#;
    let create = Create::parse(create).unwrap();
    let body = String::from_utf8(to_chat(&create, std::iter::empty()).unwrap()).unwrap();
    assert!(
        body.starts_with(r#"{"model":"m","x":1.50,"messages""#),
        "{body}"
    );
    assert!(body.contains(r#"{ "z":1e5, "a":[] }"#), "{body}");
}
