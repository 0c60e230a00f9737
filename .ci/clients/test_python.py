"""Google's own client library for Python, unmodified, against a broker that is killed now and then."""

from __future__ import annotations

import datetime
import logging
import os
import queue
import threading
import time
import unittest
from collections import Counter, defaultdict
from collections.abc import Iterator

import grpc
from google.api_core import exceptions
from google.cloud import pubsub_v1
from google.cloud.pubsub_v1.subscriber.exceptions import AcknowledgeError
from google.cloud.pubsub_v1.subscriber.message import Message
from google.protobuf.field_mask_pb2 import FieldMask
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

from broker import PATIENCE_S, Broker, until

PROJECT = "projects/python"
# Longer than three of the broker's heartbeats, and longer than idle connections live behind many a balancer.
QUIET_S = 95


class Clients(unittest.TestCase):
    broker: Broker
    quiet_broker: Broker
    quiet: Quiet

    @classmethod
    def setUpClass(cls) -> None:
        # The library tells of every lease that a kill has ended.
        logging.getLogger("google.cloud").setLevel(logging.CRITICAL)
        cls.quiet_broker, cls.broker = Broker(), Broker()
        os.environ["PUBSUB_EMULATOR_HOST"] = cls.quiet_broker.address
        cls.quiet = Quiet()
        os.environ["PUBSUB_EMULATOR_HOST"] = cls.broker.address

    @classmethod
    def tearDownClass(cls) -> None:
        cls.broker.close()
        cls.quiet_broker.close()

    def setUp(self) -> None:
        self.publisher = pubsub_v1.PublisherClient(
            publisher_options=pubsub_v1.types.PublisherOptions(enable_message_ordering=True)
        )
        self.subscriber = pubsub_v1.SubscriberClient()
        name = self.id().rsplit(".", 1)[-1].replace("_", "-")[:200]
        self.topic = f"{PROJECT}/topics/{name}"
        self.subscription = f"{PROJECT}/subscriptions/{name}"
        self.publisher.create_topic(name=self.topic)
        self.addCleanup(self.subscriber.close)

    def subscribe(self, **settings: object) -> None:
        self.subscriber.create_subscription(request={"name": self.subscription, "topic": self.topic, **settings})

    def pull(self, count: int, subscription: str | None = None) -> list[pubsub_v1.types.ReceivedMessage]:
        found: list[pubsub_v1.types.ReceivedMessage] = []
        subscription = subscription or self.subscription

        def enough() -> bool:
            response = self.subscriber.pull(subscription=subscription, max_messages=count - len(found))
            found.extend(response.received_messages)
            return len(found) >= count

        until(enough, f"{count} messages come")
        return found

    def test_kills_lose_nothing_and_ordering_and_exactly_once_delivery_hold(self) -> None:
        kills, keys, messages_per_key = 4, 3, 200
        self.subscribe(enable_message_ordering=True, enable_exactly_once_delivery=True)
        confirmed: set[str] = set()
        seen: defaultdict[str, list[int]] = defaultdict(list)
        broken: list[str] = []

        def handle(message: Message) -> None:
            if message.message_id in confirmed:
                broken.append(f"{message.message_id} came again after its ack was confirmed")
            seen[message.ordering_key].append(int(message.data))
            try:
                message.ack_with_response().result(timeout=PATIENCE_S)
                confirmed.add(message.message_id)
            except AcknowledgeError:
                pass  # It comes again.

        stream = self.subscriber.subscribe(self.subscription, handle)
        published: list[tuple[str, int]] = []

        def publish(key: str) -> None:
            for number in range(messages_per_key):
                self.publisher.publish(self.topic, str(number).encode(), ordering_key=key).result(timeout=PATIENCE_S)
                published.append((key, number))

        publishers = [threading.Thread(target=publish, args=(f"key-{key}",)) for key in range(keys)]
        for thread in publishers:
            thread.start()
        total = keys * messages_per_key
        for kill in range(1, kills + 1):
            until(lambda: len(published) >= total * kill // (kills + 1), f"kill {kill} is due")
            self.broker.restart()
        for thread in publishers:
            thread.join(PATIENCE_S)
        self.assertEqual(len(published), total)
        until(lambda: all(number in seen[key] for key, number in published), "every publication is received")
        stream.cancel()
        stream.result(timeout=PATIENCE_S)
        self.assertEqual(broken, [])
        for key, numbers in seen.items():
            last = -1
            for number in numbers:
                self.assertLessEqual(number, last + 1, f"{key}: {numbers}")
                last = max(last, number)

    def test_topics_and_subscriptions_are_administered(self) -> None:
        self.subscribe(labels={"team": "shop"})
        updated = self.subscriber.update_subscription(
            request={
                "subscription": {"name": self.subscription, "ack_deadline_seconds": 77, "labels": {"team": "pay"}},
                "update_mask": FieldMask(paths=["ack_deadline_seconds", "labels"]),
            }
        )
        self.assertEqual((updated.ack_deadline_seconds, dict(updated.labels)), (77, {"team": "pay"}))
        topic = {"name": self.topic, "message_retention_duration": datetime.timedelta(hours=1)}
        mask = FieldMask(paths=["message_retention_duration"])
        self.publisher.update_topic(request={"topic": topic, "update_mask": mask})
        found = self.publisher.get_topic(topic=self.topic)
        self.assertEqual(found.message_retention_duration, datetime.timedelta(hours=1))
        self.assertIn(self.topic, [topic.name for topic in self.publisher.list_topics(project=PROJECT)])
        self.assertEqual(list(self.publisher.list_topic_subscriptions(topic=self.topic)), [self.subscription])
        with self.assertRaises(exceptions.AlreadyExists):
            self.publisher.create_topic(name=self.topic)
        with self.assertRaises(exceptions.InvalidArgument):
            self.subscriber.modify_ack_deadline(
                subscription=self.subscription, ack_ids=["x"], ack_deadline_seconds=601
            )
        self.publisher.detach_subscription(request={"subscription": self.subscription})
        self.assertTrue(self.subscriber.get_subscription(subscription=self.subscription).detached)
        with self.assertRaises(exceptions.FailedPrecondition):
            self.subscriber.pull(subscription=self.subscription, max_messages=1)
        self.subscriber.delete_subscription(subscription=self.subscription)
        with self.assertRaises(exceptions.NotFound):
            self.subscriber.get_subscription(subscription=self.subscription)

    def test_seek_goes_back_to_a_time_and_to_a_snapshot(self) -> None:
        self.subscribe(retain_acked_messages=True)
        snapshot = f"{PROJECT}/snapshots/before"
        self.publisher.publish(self.topic, b"one").result(timeout=PATIENCE_S)
        created = self.subscriber.create_snapshot(name=snapshot, subscription=self.subscription)
        self.assertEqual(created.topic, self.topic)
        for target in [{"snapshot": snapshot}, {"time": datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)}]:
            received = self.pull(1)
            self.subscriber.acknowledge(
                subscription=self.subscription, ack_ids=[message.ack_id for message in received]
            )
            self.subscriber.seek(request={"subscription": self.subscription, **target})
            self.assertEqual(self.pull(1)[0].message.data, b"one")
            self.subscriber.seek(request={"subscription": self.subscription, **target})
        self.assertEqual([found.name for found in self.subscriber.list_snapshots(project=PROJECT)], [snapshot])
        self.subscriber.delete_snapshot(snapshot=snapshot)
        self.assertEqual(list(self.subscriber.list_snapshots(project=PROJECT)), [])

    def test_a_filter_lets_through_what_it_says(self) -> None:
        self.subscribe(filter='attributes.lang = "en" AND NOT attributes:draft')
        for attributes in [{"lang": "de"}, {"lang": "en", "draft": ""}, {"lang": "en"}]:
            self.publisher.publish(self.topic, b"", **attributes).result(timeout=PATIENCE_S)
        self.assertEqual([dict(found.message.attributes) for found in self.pull(1)], [{"lang": "en"}])
        with self.assertRaises(exceptions.InvalidArgument):
            self.subscribe(filter="attributes:")

    def test_a_message_that_fails_too_often_goes_to_the_dead_letter_topic(self) -> None:
        dead_topic, dead = f"{PROJECT}/topics/dead", f"{PROJECT}/subscriptions/dead"
        self.publisher.create_topic(name=dead_topic)
        self.subscriber.create_subscription(name=dead, topic=dead_topic)
        zero = datetime.timedelta()
        self.subscribe(
            dead_letter_policy={"dead_letter_topic": dead_topic, "max_delivery_attempts": 5},
            retry_policy={"minimum_backoff": zero, "maximum_backoff": zero},
        )
        attempts: queue.Queue[int | None] = queue.Queue()

        def refuse(message: Message) -> None:
            attempts.put(message.delivery_attempt)
            message.nack()

        stream = self.subscriber.subscribe(self.subscription, refuse)
        self.publisher.publish(self.topic, b"poison").result(timeout=PATIENCE_S)
        [letter] = self.pull(1, dead)
        stream.cancel()
        stream.result(timeout=PATIENCE_S)
        self.assertEqual([attempts.get(timeout=PATIENCE_S) for _ in range(5)], [1, 2, 3, 4, 5])
        self.assertEqual(letter.message.data, b"poison")
        source = letter.message.attributes["CloudPubSubDeadLetterSourceSubscription"]
        self.assertEqual(source, self.subscription.rsplit("/", 1)[-1])

    def test_flow_control_bounds_what_is_handled_at_a_time(self) -> None:
        self.subscribe()
        for future in [self.publisher.publish(self.topic, b"x") for _ in range(200)]:
            future.result(timeout=PATIENCE_S)
        lock, at_work, most, handled = threading.Lock(), Counter[str](), 0, 0

        def handle(message: Message) -> None:
            nonlocal most, handled
            with lock:
                at_work["now"] += 1
                most = max(most, at_work["now"])
            message.ack_with_response().result(timeout=PATIENCE_S)
            with lock:
                at_work["now"] -= 1
                handled += 1

        flow = pubsub_v1.types.FlowControl(max_messages=5)
        stream = self.subscriber.subscribe(self.subscription, handle, flow_control=flow)
        until(lambda: handled >= 200, "all messages are handled")
        stream.cancel()
        stream.result(timeout=PATIENCE_S)
        self.assertLessEqual(most, 5)

    def test_compressed_publications_arrive_whole(self) -> None:
        self.subscribe()
        channel = grpc.insecure_channel(self.broker.address, compression=grpc.Compression.Gzip)
        self.addCleanup(channel.close)
        publisher = PublisherGrpcTransport(channel=channel)
        text = b"the same again, " * 10_000
        request = pubsub_v1.types.PublishRequest(topic=self.topic, messages=[{"data": text}])
        publisher.publish(request, timeout=PATIENCE_S)
        self.assertEqual(self.pull(1)[0].message.data, text)

    def test_a_stream_without_traffic_stays_open(self) -> None:
        self.quiet.check(self)


class Quiet:
    """A stream of the first protocol version and one of the library, on which nothing comes for a long time."""

    def __init__(self) -> None:
        self._responses: queue.Queue[pubsub_v1.types.StreamingPullResponse | Exception] = queue.Queue()
        self._handled: queue.Queue[bytes] = queue.Queue()
        self._checked = threading.Event()
        self._publisher = pubsub_v1.PublisherClient()
        self._subscriber = pubsub_v1.SubscriberClient()
        self._topic = f"{PROJECT}/topics/quiet"
        self._publisher.create_topic(name=self._topic)
        for name in ["raw", "library"]:
            self._subscriber.create_subscription(name=f"{PROJECT}/subscriptions/{name}", topic=self._topic)

        def handle(message: Message) -> None:
            message.ack()
            self._handled.put(message.data)

        self._stream = self._subscriber.subscribe(f"{PROJECT}/subscriptions/library", handle)
        self._begun = time.monotonic()
        threading.Thread(target=self._read, daemon=True).start()

    def _requests(self) -> Iterator[pubsub_v1.types.StreamingPullRequest]:
        yield pubsub_v1.types.StreamingPullRequest(
            subscription=f"{PROJECT}/subscriptions/raw", stream_ack_deadline_seconds=10, protocol_version=1
        )
        # The client's side stays open until all is checked.
        self._checked.wait()

    def _read(self) -> None:
        try:
            for response in self._subscriber.streaming_pull(requests=self._requests()):
                self._responses.put(response)
        except Exception as error:  # noqa: BLE001: whatever it is, the test shall see it.
            self._responses.put(error)

    def check(self, test: unittest.TestCase) -> None:
        beats = 0
        while time.monotonic() - self._begun < QUIET_S or beats < 3:
            response = self._responses.get(timeout=PATIENCE_S)
            test.assertIsInstance(response, pubsub_v1.types.StreamingPullResponse)
            test.assertEqual(len(response.received_messages), 0)
            beats += 1
        test.assertTrue(self._stream.running())
        self._publisher.publish(self._topic, b"at last").result(timeout=PATIENCE_S)
        while not (received := self._responses.get(timeout=PATIENCE_S).received_messages):
            pass
        test.assertEqual(received[0].message.data, b"at last")
        test.assertEqual(self._handled.get(timeout=PATIENCE_S), b"at last")
        self._stream.cancel()
        self._checked.set()


def load_tests(loader: unittest.TestLoader, *_: object) -> unittest.TestSuite:
    """The quiet stream last, so that the others run while nothing happens on it."""
    names = sorted(loader.getTestCaseNames(Clients), key=lambda name: name.endswith("stays_open"))
    return unittest.TestSuite(map(Clients, names))


if __name__ == "__main__":
    unittest.main(verbosity=2)
