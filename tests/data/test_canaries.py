"""Canaries: planted answers depend on nothing but the partition's seed, the task and the client."""

from pilot.config.load import load_scenario
from pilot.data.canaries import ANSWERS, choose_canaries, with_canaries
from pilot.data.record import InstructionRecord


def record(number: int) -> InstructionRecord:
    image = f"image {number}".encode()
    return InstructionRecord(f"record {number}", "vqa", "scene-vqa", image, "How many?", "4", ("4",), {}, "train")


def test_planted_answers() -> None:
    scenario = load_scenario("scenario2+canaries")
    assert scenario.canaries == 4 and not scenario.cross_task and load_scenario("scenario2").canaries is None
    task, records = scenario.tasks[0], [record(number) for number in range(20)]
    chosen = choose_canaries(scenario, task, 0, records)
    assert len(chosen) == 4 and {each.id for each in chosen} < {each.id for each in records}
    drawn = [each.answer for each in chosen] + [each.control for each in chosen]
    assert len(set(drawn)) == 8 and set(drawn) <= set(ANSWERS)
    assert choose_canaries(scenario, task, 0, records[::-1]) == chosen, "the order of records does not matter"
    assert choose_canaries(scenario, task, 1, records) != chosen
    assert choose_canaries(scenario, scenario.tasks[1], 3, records) == [], "captions have no short answers"


def test_only_answers_of_canaries_change() -> None:
    scenario = load_scenario("scenario2+canaries")
    records = [record(number) for number in range(20)]
    planted = with_canaries({0: records}, scenario, scenario.tasks[0])[0]
    answers = {each.id: each.answer for each in choose_canaries(scenario, scenario.tasks[0], 0, records)}
    assert {each.id: each.answer for each in planted if each.answer != "4"} == answers
    assert [each.image for each in planted] == [each.image for each in records]


def test_few_records() -> None:
    scenario = load_scenario("scenario2+canaries")
    assert len(choose_canaries(scenario, scenario.tasks[0], 0, [record(1), record(2)])) == 2
