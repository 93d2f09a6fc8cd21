//! A real local model behind an OpenAI-compatible server.
