"""Seeded fault schedules: whatever goes wrong, a re-run leaves what an undisturbed run leaves."""
