-- Run once, by PostgreSQL's image, when its volume is empty.
CREATE DATABASE dagster;
CREATE DATABASE mlflow;
CREATE DATABASE feast;
