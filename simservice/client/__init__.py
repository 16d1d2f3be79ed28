"""What an agent imports: a remote world as a Gymnasium environment. Importing it registers `simservice/World-v0`."""

from simservice.client.registration import register

register()
