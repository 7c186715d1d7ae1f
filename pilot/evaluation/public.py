"""Names of the public tasks that say what a backbone forgets, and of the statements about their scenes."""

CAPTIONS, FACTS = PUBLIC = ("public-captions", "public-facts")
NUM_SCENES, FACTS_PER_SCENE = 60, 2


def scene_id(scene: int) -> str:
    """Name a scene, and the list of its objects."""
    return f"scene-{scene:03d}"


def fact_id(scene: int, place: int) -> str:
    """Name a statement about a scene."""
    return f"{scene_id(scene)}-{place}"


def scene_of_fact() -> dict[str, str]:
    """Map the names of all statements to those of their scenes: two statements show one image."""
    return {fact_id(scene, place): scene_id(scene) for scene in range(NUM_SCENES) for place in range(FACTS_PER_SCENE)}
