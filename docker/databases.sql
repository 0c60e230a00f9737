-- A database for each service of docker-compose.scale.yml.
CREATE DATABASE orders;
CREATE DATABASE payments;
CREATE DATABASE notifications;
