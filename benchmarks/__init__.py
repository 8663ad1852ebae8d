"""Measured in processes set up as a job's are."""

import jobs as jobs
