"""A server that answers as vLLM does, from a model folder, for tests that start it as a process.

    python vllm_server.py MODEL PORT_FILE [--without-lora] [--raw-logprobs] [--deaf] [--old]

Strict where vLLM is: an unknown field, adapter or model is refused, and a name is taken once. Every
token comes from a full forward pass without a cache, so that what an engine is compared with shares
no code with it. ``--deaf`` takes adapters and does not use them; ``--old`` tells no ids.
"""

from __future__ import annotations

import argparse
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

FIELDS = {
    *("model", "prompt", "n", "max_tokens", "temperature", "top_p", "top_k", "min_p", "seed"),
    *("logprobs", "stop", "stop_token_ids", "include_stop_str_in_output", "return_token_ids"),
}


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Served:
    """The model, its adapters, and what was asked."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.options, self.lock = options, threading.Lock()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.name = str(folder)
        self.adapters: dict[str, Any] = {}

    def load(self, body: dict[str, Any]) -> str:
        name, path = body["lora_name"], Path(body["lora_path"])
        if name in self.adapters:
            raise Refused(400, f"The lora adapter '{name}' has already been loaded.")
        if not (path / "adapter_config.json").is_file():
            raise Refused(404, f"No adapter found for {path}")
        model = AutoModelForCausalLM.from_pretrained(self.name, dtype=torch.float32).eval()
        adapted = model if self.options.deaf else PeftModel.from_pretrained(model, path).eval()
        self.adapters[name] = adapted
        return f"Success: LoRA adapter '{name}' added successfully."

    def unload(self, body: dict[str, Any]) -> str:
        name = body["lora_name"]
        if self.adapters.pop(name, None) is None:
            raise Refused(404, f"The lora adapter '{name}' cannot be found.")
        return f"Success: LoRA adapter '{name}' removed successfully."

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        if unknown := set(body) - FIELDS:
            raise Refused(400, f"unknown fields {sorted(unknown)}")
        model = self.base if body["model"] == self.name else self.adapters.get(body["model"])
        if model is None:
            raise Refused(404, f"The model `{body['model']}` does not exist.")
        n = body.get("n", 1)
        if n > 1 and body["temperature"] == 0:
            raise Refused(400, "n must be 1 when using greedy sampling")
        with self.lock, torch.no_grad():
            choices = [self.one(model, body, number) for number in range(n)]
        return {
            "id": "cmpl",
            "object": "text_completion",
            "model": body["model"],
            "choices": choices,
        }

    def one(self, model: Any, body: dict[str, Any], number: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed((body["seed"] + number) % 2**63)
        ids, logprobs, reason, stop_reason = list(body["prompt"]), [], "length", None
        own: list[int] = []
        while len(own) < body["max_tokens"]:
            logits = model(torch.tensor([ids + own]), use_cache=False).logits[0, -1]
            raw = logits.log_softmax(-1)
            if body["temperature"] == 0:
                processed, token = raw, int(raw.argmax())
            else:
                processed = (logits / body["temperature"]).log_softmax(-1)
                if top_k := body.get("top_k"):
                    least = processed.topk(top_k).values[-1]
                    processed = processed.masked_fill(processed < least, -torch.inf).log_softmax(-1)
                token = int(torch.multinomial(processed.exp(), 1, generator=generator))
            own.append(token)
            logprobs.append(float((raw if self.options.raw_logprobs else processed)[token]))
            if token in body["stop_token_ids"]:
                reason, stop_reason = "stop", token
                break
            text = self.tokenizer.decode(own, skip_special_tokens=True)
            if found := [stop for stop in body.get("stop", []) if stop in text]:
                reason, stop_reason = "stop", found[0]
                break
        tokens = [f"token_id:{token}" for token in own]
        choice: dict[str, Any] = {
            **{
                "index": number,
                "text": self.tokenizer.decode(own, skip_special_tokens=True),
                "finish_reason": reason,
            },
            "stop_reason": stop_reason,
            "logprobs": {
                **{"tokens": tokens, "token_logprobs": logprobs},
                **{"top_logprobs": [{}] * len(own), "text_offset": [0] * len(own)},
            },
        }
        return choice if self.options.old else {**choice, "token_ids": own}


class Handler(BaseHTTPRequestHandler):
    served: Served

    def do_GET(self) -> None:
        names = [
            (self.served.name, None),
            *((name, self.served.name) for name in self.served.adapters),
        ]
        if self.path == "/v1/models":
            data = [
                {"id": name, "object": "model", "created": 0, "owned_by": "vllm", "parent": parent}
                for name, parent in names
            ]
            self.answer(200, {"object": "list", "data": data})
        else:
            self.answer(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        calls = {"/v1/completions": self.served.complete}
        if not self.served.options.without_lora:
            calls |= {
                "/v1/load_lora_adapter": self.served.load,
                "/v1/unload_lora_adapter": self.served.unload,
            }
        try:
            if self.path not in calls:
                raise Refused(404, "Not Found")
            self.answer(200, calls[self.path](body))
        except Refused as error:
            told = {"message": str(error), "type": "BadRequestError", "code": error.status}
            self.answer(error.status, {"error": told})

    def answer(self, status: int, content: Any) -> None:
        data = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        kind = "text/plain" if isinstance(content, str) else "application/json"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("port_file", type=Path)
    for name in ("--without-lora", "--raw-logprobs", "--deaf", "--old"):
        parser.add_argument(name, action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    Handler.served = Served(options.model, options)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    half = options.port_file.with_suffix(".half")
    half.write_text(str(server.server_address[1]))
    half.replace(options.port_file)
    server.serve_forever()


if __name__ == "__main__":
    main()
