"""The ``cryptoml`` command: demo, up, backfill, doctor, and the processes they run."""
