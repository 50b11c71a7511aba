"""python3 -m unittest discover -s bench"""
import pathlib, re, tempfile, unittest
import xml.etree.ElementTree as ET

from harness import figures, goals, plot, report
from harness.figures import Case, Runs
from harness.workloads import EVERY


def run(workload: str, peer: str, rep: int, session: float = 1, foreign: float = 0, **result) -> dict:
    """A record as measure.run makes it, with figures that can be given."""
    values = {"cpu": 10.0, "p99": 20.0, "delivered": 100_000.0, "clients": 1000, "rss": 50_000_000, "client": 3000, "origins": 1, "origin_cpu": 0.0, "wire": 200, **result}
    return {"session": session, "workload": workload, "peer": peer, "rep": rep, "origin": {"max_connections": values["origins"]}, "result": {
        "connected": values["clients"], "connect_all_s": 1.5, "window_s": 10, "load_tool_cpu_s": 6, "deliveries_per_s": values["delivered"],
        "events_missing": 0, "duplicates": 0, "disconnects": 0, "failed": 0, "events_in_window": 1_000_000, "bytes_in_window": values["wire"] * 1_000_000,
        "latency": {"p50_ms": 5.0, "p99_ms": values["p99"]},
        "server": {"cpu_s": 10.0, "feed_cpu_s": values["origin_cpu"], "cpu_us_per_delivery": values["cpu"], "rss_bytes_per_client": values["client"], "rss_start_bytes": 40 << 20,
                   "rss_end_bytes": values["rss"], "rss_max_bytes": 43 << 20, "foreign_share": foreign}}}


META = {"command": "x", "versions": {}, "missing": {"nchan": "not installed"}, "unshared": True, "quick": False, "machine": {
    "cpu": "c", "cores": 2, "virtual": True, "memory_gib": 1, "kernel": "k", "system": "s", "open_files": 1024}}


class Figures(unittest.TestCase):
    def test_a_ratio_is_of_runs_of_the_same_repetition(self):
        runs = Runs([run("W2", "sse_fanout", 0, cpu=10), run("W2", "nchan", 0, cpu=20),
                     run("W2", "sse_fanout", 1, cpu=30), run("W2", "nchan", 1, cpu=30), run("W2", "nchan", 2, cpu=1)])
        f = runs.ratio(Case("W2", "sse_fanout"), Case("W2", "nchan"), figures.CPU)
        self.assertEqual((f.value, f.low, f.high, f.used, f.of), (0.75, 0.5, 1, 2, 2))

    def test_disturbed_pairs_count_only_if_there_is_no_other(self):
        records = [run("W2", "sse_fanout", 0, cpu=10), run("W2", "nchan", 0, cpu=20, foreign=0.5)]
        pair = Case("W2", "sse_fanout"), Case("W2", "nchan")
        f = Runs(records).ratio(*pair, figures.CPU)
        self.assertEqual((f.value, f.calm), (0.5, False))
        records += [run("W2", "sse_fanout", 1, cpu=9), run("W2", "nchan", 1, cpu=10)]
        f = Runs(records).ratio(*pair, figures.CPU)
        self.assertEqual((f.value, f.calm, f.used, f.of), (0.9, True, 1, 2))
        self.assertEqual(Runs(records).figure(pair[1], figures.MEMORY).used, 2, "others do not change memory")

    def test_of_a_workload_only_the_newest_session_counts(self):
        runs = Runs([{"session": 1, "meta": META}, {"session": 2, "meta": META}, run("W2", "nchan", 0, session=1), run("W2", "sse_fanout", 0, session=2)])
        self.assertEqual(list(runs.sessions), [2])
        self.assertFalse(runs.good(Case("W2", "nchan")))

    def test_a_failed_run_is_no_figure(self):
        runs = Runs([{"session": 1, "workload": "W2", "peer": "nchan", "rep": 0, "error": "x"}])
        self.assertIsNone(runs.figure(Case("W2", "nchan"), figures.CPU))
        self.assertEqual(report.count(runs, Case("W2", "nchan")), "1, 1 failed")


class Goals(unittest.TestCase):
    def state(self, *records: dict) -> dict[str, bool | None]:
        return {g.text: g.met for g in goals.all_goals(Runs(records))}

    def test_nothing_measured_is_nothing_met(self):
        self.assertEqual(set(self.state().values()), {None})

    def test_at_most_means_at_most(self):
        for cpu, met in ((11.0, True), (11.2, False)):
            state = self.state(run("W2", "sse_fanout", 0, cpu=cpu), run("W2", "floor-write", 0, cpu=10))
            self.assertIs(state["1,000 × 100/s: CPU a delivery at most 1.10 × the bare writer's"], met)

    def test_the_peer_that_comes_closest_decides(self):
        text = "CPU a delivery below every peer's in both"
        records = [run("W2", "sse_fanout", 0, cpu=9), run("W2", "nchan", 0, cpu=20), run("W2", "reverse_proxy", 0, cpu=10)]
        self.assertIs(self.state(*records)[text], True)
        records += [run("W3", "sse_fanout", 0, cpu=9), run("W3", "nchan", 0, cpu=8)]
        self.assertIs(self.state(*records)[text], False)

    def test_what_comes_late_is_not_in_time(self):
        runs = Runs([run("W4-200", "nchan", 0, delivered=200_000.0, p99=90), run("W4-500", "nchan", 0, delivered=500_000.0, p99=110),
                     run("W4-1000", "nchan", 0, delivered=800_000.0, p99=50)])
        self.assertEqual(goals.most_in_time(runs, "nchan"), 200_000)
        self.assertEqual(goals.most(runs, "nchan"), 800_000)

    def test_a_peer_that_is_never_in_time_is_beaten_by_one_that_is(self):
        text = "most deliveries/s with p99 within 100 ms: at least 2 × reverse_proxy's"
        late = run("W4-200", "reverse_proxy", 0, delivered=200_000.0, p99=150)
        self.assertIs(self.state(late, run("W4-200", "sse_fanout", 0, delivered=200_000.0, p99=50))[text], True)
        self.assertIs(self.state(late, run("W4-200", "sse_fanout", 0, delivered=200_000.0, p99=150))[text], False)

    def test_a_second_connection_to_the_origin_is_seen(self):
        for origins, met in ((1, True), (2, False)):
            self.assertIs(self.state(run("W2", "sse_fanout", 0, origins=origins))["one connection to the origin, whatever the number of clients"], met)


class Page(unittest.TestCase):
    def test_what_grows_more_than_in_proportion_is_said(self):
        self.assertIn("no worse than linear.", report.judge("it", [(1, 2), (10, 20), (100, 150)]))
        self.assertIn("**worse than linear**; more than in proportion from 10 to 100 (power 2.00)", report.judge("it", [(1, 2), (10, 20), (100, 2000)]))
        self.assertIn("no worse than linear; more than in proportion from 1 to 10", report.judge("it", [(1, 1), (10, 20), (100, 50)]))

    def test_what_takes_less_is_named(self):
        edge = next(w for w in EVERY if w.name == "E1")
        records = [run("E1", "sse_fanout", 0, cpu=30, p99=70, client=77_000), run("E1", "reverse_proxy", 0, cpu=29, p99=100, client=135_000),
                   run("E1", "nginx", 0, cpu=20, p99=100, client=54_000, origin_cpu=20.0)]
        text = report.compared(Runs(records), edge, *report.COLUMNS["E1"])
        self.assertIn("sse_fanout is behind Caddy reverse_proxy (CPU 1.03 ×); nginx (RSS 1.43 ×, CPU 1.50 ×).", text)
        self.assertIn("| 20.0 | 30.0 |", text, "the origin's is counted")
        records[1:] = [run("E1", "nginx", 0, cpu=31, p99=71, client=78_000)]
        self.assertIn("sse_fanout is behind none of them.", report.compared(Runs(records), edge, *report.COLUMNS["E1"]))

    def test_how_browsers_come_leads(self):
        with tempfile.TemporaryDirectory() as directory:
            text = report.page(Runs([{"session": 1, "meta": META}, run("E1", "sse_fanout", 0), run("W2", "sse_fanout", 0)]), pathlib.Path(directory)).read_text()
        places = [text.index(f"\n{words}") for words in ("## How browsers come", "### E1:", "## Behind a load balancer", "### W2:", "## Goals", "## Method")]
        self.assertEqual(places, sorted(places))

    def test_every_workload_has_its_place(self):
        records = [{"session": 1, "meta": META}]
        for i, w in enumerate(EVERY):
            for rep in range(2):
                records += [run(w.name, p, rep, cpu=10 + i, rss=(50 + i) << 20) for p in w.peers]
                for r in records[-len(w.peers):]:
                    r["result"]["stalled"] = {"cut_off_by_server": 50, "continued_without_gap": 0, "continued_with_gap": 0, "open_but_not_caught_up": 0}
        with tempfile.TemporaryDirectory() as directory:
            docs = pathlib.Path(directory)
            text = report.page(Runs(records), docs).read_text()
            for w in EVERY:
                self.assertIn(w.title if w.group not in ("E3", "W4", "W6") else w.group, text)
            drawn = sorted(p.stem for p in (docs / "benchmarks").iterdir())
            for path in (docs / "benchmarks").iterdir():
                ET.parse(path)
                self.assertIn(f"(benchmarks/{path.name})", text)
        self.assertEqual(drawn, ["cpu", "edge-cpu", "edge-memory", "growth-clients", "growth-history", "growth-size", "growth-topics", "memory", "saturation", "tls"])
        self.assertIn("Without nginx + nchan: not installed.", text)


class Load(unittest.TestCase):
    def test_the_load_tool_speaks_http3_as_the_server_does(self):
        root = pathlib.Path(report.__file__).parent.parent.parent
        versions = {re.search(r"quic-go/quic-go (\S+)", (root / name / "go.mod").read_text()).group(1) for name in (".", "bench/load")}
        self.assertEqual(len(versions), 1, versions)


class Plot(unittest.TestCase):
    def test_ticks_are_round_and_in_sight(self):
        linear = plot.Scale(plot.Axis(""), [3.0, 47.0], 0, 100)
        self.assertEqual(linear.ticks(), [0, 10, 20, 30, 40])
        log = plot.Scale(plot.Axis("", log=True), [20.0, 262_144.0], 0, 100)
        self.assertEqual(log.ticks(), [100, 1000, 10_000, 100_000])

    def test_numbers_are_short(self):
        self.assertEqual([plot.number(v) for v in (0.25, 12, 3000, 1_500_000)], ["0.25", "12", "3k", "1.5M"])


if __name__ == "__main__":
    unittest.main()
