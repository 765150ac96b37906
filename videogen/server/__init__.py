"""Videos over HTTP: OpenAI's /v1/videos, a queue on disk, one worker, and a page."""
