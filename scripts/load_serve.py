"""Asks a server of `serve` for answers as fast as it gives them, then at several times that rate, and counts.

    target/release/examples/serve --model runs/nested --workers 1 &
    python3 scripts/load_serve.py --url http://127.0.0.1:8080 --seconds 10

The capacity is what as many clients as there are workers get, each asking again as soon as it is answered. At a rate,
requests come at random times that do not depend on the answers, and a time is from when a request was due to the end of
its answer. Needs Python alone. Exit code 1 where a request was lost, the server counted otherwise, or what it refused
took as long as what it answered.
"""

import argparse
import asyncio
import json
import random
import time
import urllib.parse
import urllib.request

CONTEXT = (
    "Ada Moor was born in Riga. She plays the violin and works as a baker in the north of the town. "
    "Her brother Tom Moor was born in Oslo. He plays the drum and works as a doctor near the river."
)


def percentile(times, share):
    """The smallest time that this share of all does not exceed, in milliseconds."""
    ordered = sorted(times)
    return 1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


class Connections:
    """Connections that are kept for the next request."""

    def __init__(self, host, port, body):
        self.host, self.port, self.idle = host, port, []
        head = f"POST /answer HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-type: application/json\r\n"
        self.request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    async def ask(self):
        """The status of an answer whose JSON is whole."""
        reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection(self.host, self.port)
        writer.write(self.request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        said = json.loads(await reader.readexactly(length))
        status = int(head.split()[1])
        if status == 503 and ("retry-after: " not in head or said["error"]["name"] != "overloaded"):
            raise ValueError(f"503 without a time to try again: {said}")
        if status == 200 and not said["answer"]:
            raise ValueError(f"no answer: {said}")
        self.idle.append((reader, writer))
        return status


class Tally:
    """Times by status, and what was lost."""

    def __init__(self):
        self.times, self.lost = {}, []

    async def count(self, connections, due):
        try:
            status = await asyncio.wait_for(connections.ask(), 30)
            self.times.setdefault(status, []).append(time.perf_counter() - due)
        except Exception as error:  # noqa: BLE001: whatever it is, the request is lost
            self.lost.append(repr(error))

    def row(self, name, seconds):
        of = lambda status: self.times.get(status, [])
        others = sum(len(times) for status, times in self.times.items() if status not in (200, 503))
        answered, refused = of(200), of(503)
        print(
            f"{name:>9} {len(answered) / seconds:9.1f} {len(answered):7} {percentile(answered, 0.5):8.1f} "
            f"{percentile(answered, 0.99):8.1f} {len(refused):7} {percentile(refused, 0.5):8.1f} "
            f"{percentile(refused, 0.99):8.1f} {others:6} {len(self.lost):5}"
        )
        for error in self.lost[:3]:
            print(f"          lost: {error}")


async def closed_loop(connections, clients, seconds):
    tally, start = Tally(), time.perf_counter()

    async def client():
        while time.perf_counter() - start < seconds:
            await tally.count(connections, time.perf_counter())

    await asyncio.gather(*(client() for _ in range(clients)))
    return tally, time.perf_counter() - start


async def open_loop(connections, rate, seconds, draws):
    tally, tasks, start = Tally(), [], time.perf_counter()
    due = start
    while due - start < seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(tally.count(connections, due)))
        due += draws.expovariate(rate)
    await asyncio.gather(*tasks)
    return tally, time.perf_counter() - start


async def run(arguments):
    url = urllib.parse.urlsplit(arguments.url)

    def counts():
        with urllib.request.urlopen(f"{arguments.url}/health") as answer:
            return json.load(answer)["requests"]

    body = {"question": arguments.question, "context": arguments.context, "choice": json.loads(arguments.choice)}
    connections = Connections(url.hostname, url.port, json.dumps(body).encode())
    before = counts()
    print(f"{before['workers']} workers, {before['queue']} may wait, {arguments.seconds:g} s each; times in milliseconds")
    print("     load  answers/s     200      p50      p99     503      p50      p99  other  lost")
    await closed_loop(connections, before["workers"], 1.0)
    before = counts()
    tally, took = await closed_loop(connections, before["workers"], arguments.seconds)
    tally.row("closed", took)
    tallies, capacity = [tally], len(tally.times.get(200, [])) / took
    draws = random.Random(arguments.seed)
    for rate in arguments.rates:
        tally, took = await open_loop(connections, rate * capacity, arguments.seconds, draws)
        tally.row(f"{rate:g}x", took)
        tallies.append(tally)
    after = counts()
    faults = []
    for status, name in ((200, "answered"), (503, "overloaded")):
        got, counted = sum(len(tally.times.get(status, [])) for tally in tallies), after[name] - before[name]
        if got != counted:
            faults.append(f"{got} answers of status {status}, the server counted {counted}")
    if any(tally.lost for tally in tallies):
        faults.append("requests were lost")
    last = tallies[-1].times
    if last.get(503) and percentile(last[503], 0.5) > percentile(last.get(200, []), 0.5):
        faults.append("what was refused waited longer than what was answered")
    print("\n".join(faults) or "nothing lost: the server counted the same")
    return 1 if faults else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rates", type=lambda text: [float(rate) for rate in text.split(",")], default=[0.8, 1.0, 4.0],
                        help="multiples of the capacity, the highest last")
    parser.add_argument("--question", default="Where was Ada Moor born?")
    parser.add_argument("--context", default=CONTEXT)
    parser.add_argument("--choice", default='"default"', help="JSON, as a request has it")
    parser.add_argument("--seed", type=int, default=1)
    raise SystemExit(asyncio.run(run(parser.parse_args())))


if __name__ == "__main__":
    main()
