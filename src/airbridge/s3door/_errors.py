"""What the door answers when it does not let a request through: S3's own codes, in S3's own XML.

Codes after "Error responses" (Amazon S3 API Reference,
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html).
"""

from __future__ import annotations

from xml.sax.saxutils import escape

__all__ = [
    "S3Error",
    "access_denied",
    "bad_digest",
    "invalid_request",
    "not_signed",
    "slow_down",
    "wrong_signature",
]


class S3Error(Exception):
    """Why a request is answered here and goes no further.

    Args:
        status: of the answer.
        code: S3's, which clients act upon.
        message: for a person, and no oracle: the same for a name that nobody has and for a wrong signature.
        reason: a stable word for the audit log and the metric, which may say more than outsiders are told.
    """

    def __init__(self, status: int, code: str, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.reason = reason

    def document(self, request_id: str) -> bytes:
        """Return the body of the answer."""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{escape(self.code)}</Code><Message>{escape(self.message)}</Message>"
            f"<RequestId>{escape(request_id)}</RequestId></Error>"
        ).encode()


def wrong_signature(reason: str) -> S3Error:
    """Return the one answer to every forgery; ``reason`` is for the record."""
    return S3Error(
        403,
        "SignatureDoesNotMatch",
        "The request signature does not match. Check the access key id, the secret and the signed parts.",
        reason=reason,
    )


def access_denied(message: str, reason: str = "s3_not_allowed") -> S3Error:
    """Return the answer to who is known and may not."""
    return S3Error(403, "AccessDenied", message, reason=reason)


def not_signed() -> S3Error:
    """Return the answer to a request without a signature."""
    return access_denied("This S3 serves signed requests only.", "signature_missing")


def invalid_request(message: str, code: str = "InvalidRequest", reason: str = "request_invalid") -> S3Error:
    """Return the answer to what no client of S3 sends."""
    return S3Error(400, code, message, reason=reason)


def bad_digest(code: str, message: str) -> S3Error:
    """Return the answer to a body that is not what its sender signed."""
    return S3Error(400, code, message, reason="body_tampered")


def slow_down(reason: str) -> S3Error:
    """Return the answer that makes every S3 client try again later."""
    return S3Error(503, "SlowDown", "Please reduce your request rate.", reason=reason)
