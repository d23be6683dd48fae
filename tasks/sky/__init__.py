"""The sky: targets, surveys, cutouts, profiles. No Prefect in here."""
