"""The in-memory model that the database is held against: what stands of each candle after every event, by the rules."""

from __future__ import annotations

from dataclasses import dataclass, field

MANUAL = "manual"


@dataclass(frozen=True)
class Version:
    """One thing that somebody said of a candle, and whether it then stood."""

    moment: int
    source: str
    value: tuple[str, bool]
    chosen: bool


@dataclass
class Model:
    """Candles by position, each a list of versions in order; a value is (close, has takers), takers make it better."""

    said: dict[int, list[Version]] = field(default_factory=dict)

    def offer(self, moment: int, source: str, position: int, value: tuple[str, bool]) -> str:
        versions = self.said.setdefault(position, [])
        own = [v for v in versions if v.source == source]
        if own and own[-1].value == value and source != MANUAL:
            return "unchanged"
        verdict = self.verdict(self.standing(position), source, value)
        versions.append(Version(moment, source, value, verdict != "kept"))
        return verdict

    def verdict(self, stands: Version | None, source: str, value: tuple[str, bool]) -> str:
        if stands is None:
            return "inserted"
        better = value[1] > stands.value[1] and value != stands.value and stands.source != MANUAL
        return "updated" if source in (stands.source, MANUAL) or better else "kept"

    def standing(self, position: int, moment: int | None = None) -> Version | None:
        known = [v for v in self.said.get(position, []) if v.chosen and (moment is None or v.moment <= moment)]
        return known[-1] if known else None

    def revert(self, moment: int, position: int) -> None:
        stands: Version | None = None
        for version in self.said[position]:
            if version.source != MANUAL and self.verdict(stands, version.source, version.value) != "kept":
                stands = version
        assert stands is not None
        self.said[position].append(Version(moment, stands.source, stands.value, chosen=True))

    def revision(self, position: int, moment: int) -> int:
        return sum(v.chosen and v.moment <= moment for v in self.said[position])
