"""Sends e-mail and invoices to programs that nobody here wrote: aiosmtpd as the mail server, pypdf as the reader.

Needs a running broker with the topology, the programs `notification-service` and `invoice-worker` of the folder that is
given, and the packages google-cloud-pubsub, aiosmtpd and pypdf. Ends what it starts.

    BROKER=127.0.0.1:8085 python .ci/clients/emails.py target/debug
"""

import email
import io
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

os.environ["PUBSUB_EMULATOR_HOST"] = os.environ.get("BROKER", "127.0.0.1:8085")

from aiosmtpd.controller import Controller
from google.cloud import pubsub_v1
from pypdf import PdfReader

PROJECT = "orderflow"
DEADLINE_S = 60


def field(number, value):
    """One field of a protobuf message: a number, or bytes behind their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


class Mailbox:
    """Takes mails; refuses each one the first time, as servers with grey lists do."""

    def __init__(self):
        self.mails, self.seen = [], set()

    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content)
        if mail["Message-ID"] not in self.seen:
            self.seen.add(mail["Message-ID"])
            return "451 try again later"
        self.mails.append(mail)
        return "250 taken"


def money(amount_minor):
    return field(1, "EUR") + field(2, amount_minor)


def publish(topic, kind, event_id, payload, key=""):
    options = pubsub_v1.types.PublisherOptions(enable_message_ordering=True)
    publisher = pubsub_v1.PublisherClient(publisher_options=options)
    attributes = {"ce-id": event_id, "ce-type": f"orderflow.events.v1.{kind}", "ce-source": "emails.py"}
    name = publisher.topic_path(PROJECT, topic)
    publisher.publish(name, payload, ordering_key=key, **attributes).result(timeout=30)


def free_port():
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def main(programs):
    mailbox, folder = Mailbox(), tempfile.TemporaryDirectory()
    port = free_port()
    server = Controller(mailbox, hostname="127.0.0.1", port=port)
    server.start()
    broker = ["--broker", f"http://{os.environ['PUBSUB_EMULATOR_HOST']}", "--listen", "127.0.0.1:0"]
    database = f"sqlite://{folder.name}/notification.db"
    started = [
        subprocess.Popen(
            [programs / "notification-service", *broker, "--database-url", database]
            + ["--email-url", f"smtp://127.0.0.1:{port}"]
        ),
        subprocess.Popen([programs / "invoice-worker", *broker]),
    ]
    try:
        total, run = money(2598), f"{time.time_ns()}"
        order = field(1, "o-1") + field(2, "ada") + field(9, "ada@example.org")
        placed = order + field(3, field(1, total) + field(2, "tok_visa"))
        publish("order-events", "OrderPlaced", f"placed-{run}", placed, "o-1")
        line = field(1, "coffee") + field(2, 2) + field(3, money(1299))
        when = field(1, 1795305600)
        job = field(1, f"INV-{run}") + field(2, f"o-{run}") + field(3, "ada") + field(4, "ada@example.org")
        job += field(5, line) + field(6, total) + field(7, when) + field(8, when)
        publish("invoice-jobs", "InvoiceJob", f"job-{run}", job)
        deadline = time.monotonic() + DEADLINE_S
        while len(mailbox.mails) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        check(mailbox.mails, run)
    finally:
        for process in started:
            process.terminate()
        codes = [process.wait(timeout=30) for process in started]
        server.stop()
    assert codes == [0, 0], codes
    print("two e-mails were taken by aiosmtpd, and pypdf has read the invoice")


def check(mails, run):
    assert len(mails) == 2, [mail["Subject"] for mail in mails]
    by_subject = {mail["Subject"].split(" order ")[0]: mail for mail in mails}
    assert sorted(by_subject) == ["Invoice for your", "We have received your"], sorted(by_subject)
    page = by_subject["Invoice for your"].get_payload()[1]
    assert page.get_content_type() == "application/pdf" and page.get_filename() == f"INV-{run}.pdf"
    reader = PdfReader(io.BytesIO(page.get_payload(decode=True)), strict=True)
    text = reader.pages[0].extract_text()
    for expected in ["INVOICE", f"INV-{run}", "ada@example.org", "coffee", "25.98 EUR", "Page 1 of 1"]:
        assert expected in text, (expected, text)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
