"""One OpenAI-compatible endpoint (vLLM, llama.cpp, Ollama, OpenAI): a message goes in, a reply comes out."""

import importlib.util
import threading
import time
from dataclasses import dataclass
from typing import Any

from pipeline.evaluation.judges.protocol import JudgeError

NO_KEY = "none"  # the client wants one; left out, it would send the environment's OPENAI_API_KEY to any server


@dataclass(frozen=True)
class Reply:
    """What came back, and tokens of the question and of the reply as the server counts them (0 where it doesn't)."""

    text: str
    input_tokens: int = 0
    output_tokens: int = 0


def require_client() -> None:
    """Raises JudgeError where the package isn't installed."""
    if importlib.util.find_spec("openai") is None:
        raise JudgeError("judges of kind llm need the package openai: pip install 'align-pipeline[llm]'")


class Endpoint:
    """Asks one model, from several threads if need be.

    Args:
        base_url, model: where, and whom.
        api_key: sent as the bearer; None = none is.
        temperature, max_tokens: of the reply; None = not sent.
        timeout: seconds until a request counts as failed.
        max_retries: after timeouts, 408, 409, 429 and 5xx, with the client's backoff.
        requests_per_minute: first tries are spaced by 60 / this; None = no limit.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        temperature: float | None = 0.0,
        max_tokens: int | None = 1024,
        timeout: float = 120.0,
        max_retries: int = 5,
        requests_per_minute: float | None = None,
    ) -> None:
        require_client()
        from openai import OpenAI

        self.base_url, self.model = base_url, model
        self.options = {"temperature": temperature, "max_tokens": max_tokens}
        self._retries, self._has_key = max_retries, api_key is not None
        self._client = OpenAI(base_url=base_url, api_key=api_key or NO_KEY, timeout=timeout, max_retries=max_retries)
        self._pace = Pace(0.0 if requests_per_minute is None else 60.0 / requests_per_minute)

    def ask(self, text: str) -> Reply:
        """The reply to one user message.

        Raises:
            JudgeError: unreachable, refused, no such model, or no chat completion came back.
        """
        import openai

        self._pace.wait()
        sent: dict[str, Any] = {name: value for name, value in self.options.items() if value is not None}
        try:
            done: Any = self._client.chat.completions.create(
                model=self.model, messages=[{"role": "user", "content": text}], **sent
            )
            usage = done.usage
            return Reply(
                done.choices[0].message.content or "",
                getattr(usage, "prompt_tokens", None) or 0,
                getattr(usage, "completion_tokens", None) or 0,
            )
        except openai.OpenAIError as error:
            raise JudgeError(self._explain(error)) from None
        except (AttributeError, IndexError, TypeError, ValueError):
            raise JudgeError(
                f"{self.base_url} doesn't answer as OpenAI's chat completions do; most servers want it to end in /v1"
            ) from None

    def _explain(self, error: Exception) -> str:
        import openai

        where, tries = self.base_url, f"{self._retries + 1} tries"
        if isinstance(error, openai.APITimeoutError):
            return f"{where} didn't answer in time, {tries}; raise timeout or lower concurrency"
        if isinstance(error, openai.APIConnectionError):
            return f"{where} can't be reached ({error.__cause__ or error}); is the server running?"
        if isinstance(error, (openai.AuthenticationError, openai.PermissionDeniedError)):
            key = "the key" if self._has_key else "requests without a key"
            return f"{where} refuses {key} ({error.status_code}); api_key_env names the variable that holds it"
        body = getattr(error, "body", None)
        said = " ".join(str(body.get("message", body) if isinstance(body, dict) else error).split())[:300]
        if isinstance(error, openai.NotFoundError):
            return f"{where} has no model {self.model!r}, or nothing at this address (404): {said}"
        if isinstance(error, openai.RateLimitError):
            return (
                f"{where} takes no more requests (429) after {tries}; lower concurrency or requests_per_minute: {said}"
            )
        status = getattr(error, "status_code", 0)
        how = f"fails ({status}) after {tries}" if status >= 500 else f"refuses a request ({status})"
        return f"{where} {how}: {said}"


class Pace:
    """Lets callers pass at least `seconds` apart."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._lock, self._next = seconds, threading.Lock(), 0.0

    def wait(self) -> None:
        """Return when it is this caller's turn."""
        if not self._seconds:
            return
        with self._lock:
            mine = max(self._next, time.monotonic())
            self._next = mine + self._seconds
        time.sleep(max(0.0, mine - time.monotonic()))
